package deployment

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
)

// own are the settings in which workers of one kind may differ. In all others
// they are replicas of each other.
var own = []string{
	"drain-timeout", "admin-address", "log-level", "log-format", "client-id",
	"prefix",    // compared between all kinds
	"brokers",   // one in common is enough
	"catalogue", // its content counts
	"listen", "instance", "raw", "s3-access-key-id", "s3-secret-access-key-file", "s3-ca-file",
	"worker", "group-instance", "from-here",
}

// Disagreements says in what the workers do not fit together.
func Disagreements(workers []Worker) (faults []string) {
	note := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for i, w := range workers {
		if i > 0 {
			first := workers[0]
			if a, b := w.Text("prefix"), first.Text("prefix"); a != b {
				note("%s: prefix is %s, and that of %s is %s", w, a, first, b)
			}
			if !haveCommon(w.Strings("brokers"), first.Strings("brokers")) {
				note("%s: brokers are %v, and %s has none of them", w, w.Strings("brokers"), first)
			}
		}
		for _, other := range workers[:i] {
			if w.Kind == Ingest && other.Kind == Aggregate {
				faults = append(faults, outlasted(w, other)...)
			}
			if w.Kind == Aggregate && other.Kind == Ingest {
				faults = append(faults, outlasted(other, w)...)
			}
			if id := w.Text("group-instance"); w.Kind == Aggregate && other.Kind == Aggregate && id != "" && id == other.Text("group-instance") {
				note("%s: group-instance is %s, as that of %s; each member needs its own", w, id, other)
			}
		}
		if k := slices.IndexFunc(workers[:i], func(other Worker) bool { return other.Kind == w.Kind }); k >= 0 {
			faults = append(faults, differences(w, workers[k])...)
		}
	}
	return faults
}

func haveCommon(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// outlasted: a frame whose publication takes as long as the idle horizon is late.
func outlasted(ingest, aggregate Worker) []string {
	timeout, horizon := ingest.duration("publish-timeout"), aggregate.duration("idle-horizon")
	if timeout < horizon {
		return nil
	}
	return []string{fmt.Sprintf("%s: publish-timeout is %s, as long as the idle-horizon of %s (%s) or longer: frames of a producer that waits would be late", ingest, timeout, aggregate, horizon)}
}

// differences are those between workers of one kind.
func differences(w, like Worker) (faults []string) {
	for _, name := range slices.Sorted(maps.Keys(w.settings)) {
		if a, b := w.settings[name], like.settings[name]; !slices.Contains(own, name) && !reflect.DeepEqual(a, b) {
			faults = append(faults, fmt.Sprintf("%s: %s is %v, and that of %s is %v", w, name, a, like, b))
		}
	}
	a, b := w.Text("catalogue"), like.Text("catalogue")
	same, err := sameContent(a, b)
	if err != nil {
		faults = append(faults, fmt.Sprintf("%s: compare its catalogue with that of %s: %v", w, like, err))
	} else if !same {
		faults = append(faults, fmt.Sprintf("%s: its catalogue %q has another content than that of %s, %q", w, a, like, b))
	}
	return faults
}

// sameContent compares two files; no name is the built-in one.
func sameContent(a, b string) (bool, error) {
	if a == b {
		return true, nil
	}
	if a == "" || b == "" {
		return false, nil
	}
	of, err := os.ReadFile(a)
	if err != nil {
		return false, err
	}
	other, err := os.ReadFile(b)
	return bytes.Equal(of, other), err
}
