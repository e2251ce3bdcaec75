package main

import (
	"fmt"
	"math"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/linkedin/goavro/v2"

	"github.com/morphogenetic/oona"
)

// The textbook implementation, for comparison: a record per seed, decoded by goavro into
// maps; Welford's moments and a DDSketch of 1% for each metric, layer and window; windows
// closed by the greatest timestamp. A careful newcomer would write it. It does less than
// Oona: no duplicates, no states, no worst seeds, no commits.

const textbookSchema = `{"type": "record", "name": "LayerReadings", "fields": [
  {"name": "run_id", "type": "string"}, {"name": "layer_id", "type": "string"}, {"name": "observed_at", "type": "long"},
  {"name": "readings", "type": {"type": "array", "items": {"type": "record", "name": "Reading", "fields": [
    {"name": "seed_id", "type": "int"}, {"name": "state", "type": "int"},
    {"name": "reconstruction_loss", "type": "float"}, {"name": "gradient_norm", "type": "float"},
    {"name": "activation_variance", "type": "float"}, {"name": "dead_fraction", "type": "float"},
    {"name": "weight_norm", "type": "float"}, {"name": "improvement", "type": "float"},
    {"name": "blend", "type": "float"}, {"name": "compute_seconds", "type": "float"}]}}}]}`

var textbookSpeed = figure{name: "textbook_msamples_core", unit: "M samples/s", about: "the same samples by goavro rows, Welford and DDSketch, by processor time"}

var overTextbook = figure{name: "decode_fold_over_textbook", goal: 20, about: "decode_fold_msamples_core over the one above"}

// textbook folds messages of the first frames of the corpus.
type textbook struct {
	codec    *goavro.Codec
	messages [][]byte
	windows  map[textbookKey]map[string]*textbookMetric
	latest   int64
	closed   int
	results  []float64 // of the last closed windows
}

type textbookKey struct {
	layer string
	start int64
}

type textbookMetric struct {
	count          int64
	mean, m2       float64
	least, highest float64
	sketch         *ddsketch.DDSketch
}

func newTextbook(c *corpus, frames int) (*textbook, error) {
	codec, err := goavro.NewCodec(textbookSchema)
	if err != nil {
		return nil, fmt.Errorf("schema of the text-book way: %w", err)
	}
	t := &textbook{codec: codec, windows: make(map[textbookKey]map[string]*textbookMetric)}
	start := windowStart(time.Now())
	for i := range frames {
		// A few layers, each with frames over several windows.
		f := c.frame("bench", start, i/textbookLayers, i%textbookLayers)
		message, err := codec.BinaryFromNative(nil, rows(&f))
		if err != nil {
			return nil, fmt.Errorf("encode rows: %w", err)
		}
		t.messages = append(t.messages, message)
	}
	return t, nil
}

const textbookLayers = 16

func rows(f *oona.Frame) map[string]any {
	readings := make([]any, len(f.Seeds))
	for i, seed := range f.Seeds {
		row := map[string]any{"seed_id": int32(seed), "state": int32(f.States[i])}
		for _, column := range f.Metrics {
			row[column.Name] = column.Values[i]
		}
		readings[i] = row
	}
	return map[string]any{"run_id": string(f.Run), "layer_id": string(f.Layer), "observed_at": int64(f.ObservedAt), "readings": readings}
}

func (t *textbook) measure(into *figures) error {
	used, _, err := metered(t.fold)
	if err != nil {
		return err
	}
	into.take(textbookSpeed, float64(len(t.messages))*samplesPerFrame/used.Seconds()/1e6)
	into.takeRatio(overTextbook, decodeFold, textbookSpeed)
	return nil
}

func (t *textbook) fold() error {
	clear(t.windows)
	t.latest, t.closed, t.results = 0, 0, t.results[:0]
	for _, message := range t.messages {
		native, _, err := t.codec.NativeFromBinary(message)
		if err != nil {
			return err
		}
		if err := t.add(native.(map[string]any)); err != nil {
			return err
		}
	}
	if t.closed == 0 {
		return fmt.Errorf("the text-book way closed no window in %d frames", len(t.messages))
	}
	return nil
}

const (
	textbookLength   = 10_000_000 // microseconds
	textbookLateness = 6_000_000
)

func (t *textbook) add(frame map[string]any) error {
	at := frame["observed_at"].(int64)
	key := textbookKey{frame["layer_id"].(string), at - at%textbookLength}
	window := t.windows[key]
	if window == nil {
		window = make(map[string]*textbookMetric)
		t.windows[key] = window
	}
	for _, reading := range frame["readings"].([]any) {
		for name, value := range reading.(map[string]any) {
			sample, ok := value.(float32)
			if !ok {
				continue // the seed's id and its state
			}
			m := window[name]
			if m == nil {
				sketch, err := ddsketch.NewDefaultDDSketch(0.01)
				if err != nil {
					return err
				}
				m = &textbookMetric{least: math.Inf(1), highest: math.Inf(-1), sketch: sketch}
				window[name] = m
			}
			if err := m.add(float64(sample)); err != nil {
				return err
			}
		}
	}
	t.latest = max(t.latest, at)
	return t.close()
}

// add adds a value, after Welford, "Note on a method for calculating corrected sums of
// squares and products" (1962).
func (m *textbookMetric) add(x float64) error {
	m.count++
	delta := x - m.mean
	m.mean += delta / float64(m.count)
	m.m2 += delta * (x - m.mean)
	m.least, m.highest = math.Min(m.least, x), math.Max(m.highest, x)
	return m.sketch.Add(x)
}

// close computes the results of the windows that the latest timestamp has passed.
func (t *textbook) close() error {
	for key, window := range t.windows {
		if key.start+textbookLength+textbookLateness > t.latest {
			continue
		}
		for name, m := range window {
			quantiles, err := m.sketch.GetValuesAtQuantiles([]float64{0.5, 0.9, 0.99})
			if err != nil {
				return fmt.Errorf("quantiles of %s: %w", name, err)
			}
			t.results = append(t.results, math.Sqrt(m.m2/float64(m.count)), quantiles[1])
		}
		delete(t.windows, key)
		t.closed++
	}
	return nil
}
