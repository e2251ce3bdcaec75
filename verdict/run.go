package verdict

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/morphogenetic/oona"
)

// Run judges the layers of one run. The rollups of one layer and group must come in the order of
// their triggers. Those of different layers and groups may be interleaved in any way. A Run keeps
// every layer until Forget.
type Run struct {
	rule   func(metric string) Rule
	judges map[oona.LayerID]*Judge
	now    oona.Micros
	risen  oona.Micros
}

// NewRun returns a Run without layers. Rule is as for NewJudge.
func NewRun(rule func(metric string) Rule) *Run {
	return &Run{rule: rule, judges: make(map[oona.LayerID]*Judge)}
}

// Observe passes a rollup to the judge of its layer.
func (r *Run) Observe(rollup *oona.Rollup) {
	j := r.judges[rollup.Layer]
	if j == nil {
		j = NewJudge(r.rule)
		r.judges[rollup.Layer] = j
	}
	j.Observe(rollup)
	r.now = max(r.now, j.pace.end)
	r.risen = max(r.risen, j.pace.risen)
}

// Now returns the latest end of a window that was observed, or 0.
func (r *Run) Now() oona.Micros { return r.now }

// Judge returns the judge of a layer, or nil.
func (r *Run) Judge(layer oona.LayerID) *Judge { return r.judges[layer] }

// At returns the verdict on a layer at the event time now, and whether the layer is known. Pass the
// result of Now. Pass 0 until the topics are read up to where they ended at the start, because some
// layers may be read before others until then. With 0, no layer is stalled.
func (r *Run) At(layer oona.LayerID, now oona.Micros) (Verdict, bool) {
	j := r.judges[layer]
	if j == nil {
		return Verdict{Learning: true}, false
	}
	if now == 0 {
		return j.at(0, 0), true
	}
	return j.at(now, r.risen), true
}

// Layer is a layer with its verdict.
type Layer struct {
	Name oona.LayerID
	Verdict
}

// Layers returns the verdicts on all layers, each as from At. The worst level comes first. Layers of
// the same level are in the order of CompareLayers.
func (r *Run) Layers(now oona.Micros) []Layer {
	layers := make([]Layer, 0, len(r.judges))
	for name := range maps.Keys(r.judges) {
		v, _ := r.At(name, now)
		layers = append(layers, Layer{name, v})
	}
	slices.SortFunc(layers, func(a, b Layer) int {
		return cmp.Or(-cmp.Compare(a.Level, b.Level), CompareLayers(a.Name, b.Name))
	})
	return layers
}

// Forget removes a layer. If rollups of it come again, it is judged as a new layer.
func (r *Run) Forget(layer oona.LayerID) { delete(r.judges, layer) }

// Len returns how many layers are kept.
func (r *Run) Len() int { return len(r.judges) }

// CompareLayers orders names as people expect. It compares numbers in them by value, so that enc.2
// comes before enc.10.
func CompareLayers(a, b oona.LayerID) int {
	x, y := string(a), string(b)
	for x != "" && y != "" {
		p, q := piece(x), piece(y)
		x, y = x[len(p):], y[len(q):]
		var c int
		if digit(p[0]) && digit(q[0]) {
			n, m := strings.TrimLeft(p, "0"), strings.TrimLeft(q, "0")
			c = cmp.Or(cmp.Compare(len(n), len(m)), strings.Compare(n, m))
		} else {
			c = strings.Compare(p, q)
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(string(a), string(b)))
}

// piece returns the digits, or the other characters, with which a text begins.
func piece(text string) string {
	n := 1
	for n < len(text) && digit(text[n]) == digit(text[0]) {
		n++
	}
	return text[:n]
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
