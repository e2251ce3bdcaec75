package manifest

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
)

// Difference returns the path of the first field in which two JSON objects differ, and both values.
// The path is empty if the objects are equal.
func Difference(held, asked json.RawMessage) (field, inHeld, inAsked string) {
	var a, b map[string]json.RawMessage
	if json.Unmarshal(held, &a) != nil || json.Unmarshal(asked, &b) != nil {
		if x, y := compacted(held), compacted(asked); x != y {
			return "options", x, y
		}
		return "", "", ""
	}
	all := maps.Clone(b)
	if all == nil {
		all = map[string]json.RawMessage{}
	}
	maps.Copy(all, a)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		x, y := compacted(a[name]), compacted(b[name])
		if x == y {
			continue
		}
		if inner, v, w := Difference(a[name], b[name]); inner != "" && inner != "options" {
			return name + "." + inner, v, w
		}
		return name, x, y
	}
	return "", "", ""
}

// compacted returns JSON without white space. It returns "unset" if there is no JSON.
func compacted(text json.RawMessage) string {
	var out bytes.Buffer
	switch {
	case len(text) == 0:
		return "unset"
	case json.Compact(&out, text) != nil:
		return string(text)
	}
	return out.String()
}
