package e2e

import (
	"bytes"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// What is wrong with the run, and known to the test alone.
const (
	run      = "digits-42"
	endedRun = "digits-41"
	sick     = "enc.3" // its gradients explode
	worse    = "dec.1" // its loss grows
	seeds    = 30
)

var layers = []oona.LayerID{"enc.0", "enc.1", "enc.2", "enc.3", "enc.4", "dec.0", "dec.1", "dec.2"}

// training sends the frames of a run, and what ingest refuses.
type training struct {
	t        *testing.T
	url      string
	random   *rand.Rand
	epoch    oona.Micros
	sequence map[oona.RunID]int64
	steps    int64
	states   map[oona.LayerID][]oona.State
	faulty   atomic.Bool // whether the fault of the sick layer has begun
	worse    atomic.Bool // whether that of the other layer has
	accepted int         // frames
	lates    int         // frames among them that came too late
}

func newTraining(t *testing.T, url string) *training {
	r := &training{t: t, url: url, random: rand.New(rand.NewPCG(14, 3)), epoch: oona.MicrosOf(time.Now()), states: make(map[oona.LayerID][]oona.State), sequence: make(map[oona.RunID]int64)}
	for _, id := range layers {
		r.states[id] = make([]oona.State, seeds)
	}
	return r
}

// step sends a frame of each layer.
func (r *training) step(name oona.RunID, ids []oona.LayerID) {
	r.steps++
	var frames []*oona.Frame
	for _, id := range ids {
		r.live(id)
		frames = append(frames, r.frame(name, id, time.Now()))
	}
	r.send(http.StatusOK, frames...)
}

// live lets seeds go on in their lifecycle. Each frame, few of them do.
func (r *training) live(id oona.LayerID) {
	for i, s := range r.states[id] {
		if r.random.Float64() > 0.012 {
			continue
		}
		switch next := oona.State(s + 1); {
		case s == oona.Training && r.random.Float64() < 0.3:
			r.states[id][i] = oona.Culled
		case s == oona.Grafting && r.random.Float64() < 0.15:
			r.states[id][i] = oona.RolledBack
		case s == oona.Germinated && r.random.Float64() < 0.1:
			r.states[id][i] = oona.Cancelled
		case s < oona.Fossilized:
			r.states[id][i] = next
		}
	}
}

func (r *training) frame(name oona.RunID, id oona.LayerID, at time.Time) *oona.Frame {
	r.sequence[name]++
	f := &oona.Frame{
		Run: name, Layer: id, Producer: "rank-0", Epoch: r.epoch, Sequence: r.sequence[name], ObservedAt: oona.MicrosOf(at), Step: r.steps,
		States: append([]oona.State(nil), r.states[id]...),
	}
	factor := map[string]float64{}
	if r.faulty.Load() {
		factor[sick+" gradient_norm"] = 300
	}
	if r.worse.Load() {
		factor[worse+" reconstruction_loss"] = 4
	}
	decay := math.Exp(-float64(r.steps) / 2000)
	for seed := range oona.SeedID(seeds) {
		f.Seeds = append(f.Seeds, seed)
	}
	for _, metric := range []struct {
		name           string
		middle, spread float64
	}{
		{"gradient_norm", 0.4 * decay, 0.5}, {"reconstruction_loss", 1.2 * decay, 0.25}, {"weight_norm", 6, 0.1}, {"dead_fraction", 0.03, 0.4},
		{"improvement", 0.02, 0.6}, {"compute_seconds", 0.012, 0.2},
	} {
		c := oona.Column{Name: metric.name}
		scale := metric.middle
		if by, ok := factor[string(id)+" "+metric.name]; ok {
			scale *= by
		}
		for _, state := range f.States {
			value := float32(scale * math.Exp(metric.spread*r.random.NormFloat64()))
			if metric.name == "improvement" && state == oona.Dormant {
				value = float32(math.NaN()) // not measured
			}
			c.Values = append(c.Values, value)
		}
		f.Metrics = append(f.Metrics, c)
	}
	return f
}

// late sends a frame whose window has long closed.
func (r *training) late() {
	r.lates++
	r.send(http.StatusOK, r.frame(run, "enc.1", time.Now().Add(-20*time.Second)))
}

// tensor sends a frame with a tensor that goes to the store.
func (r *training) tensor() {
	f := r.frame(run, "enc.2", time.Now())
	f.Tensors = []oona.Tensor{{Name: "delta", Seed: 1, DType: "uint8", Shape: []int64{1 << 15}, Data: bytes.Repeat([]byte{byte(r.steps)}, 1<<15)}}
	r.send(http.StatusOK, f)
}

// refused sends what no ingest takes.
func (r *training) refused() { r.post(http.StatusBadRequest, []byte("no frame")) }

func (r *training) send(want int, frames ...*oona.Frame) {
	var body []byte
	for _, f := range frames {
		body = avro.AppendFrame(body, f)
	}
	if r.post(want, body) {
		r.accepted += len(frames)
	}
}

func (r *training) post(want int, body []byte) bool {
	response, err := http.Post(r.url, "application/avro", bytes.NewReader(body))
	if err != nil {
		r.t.Error(err)
		return false
	}
	answer, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != want {
		r.t.Errorf("ingest answers %s, want %d: %s", response.Status, want, answer)
	}
	return response.StatusCode == want
}
