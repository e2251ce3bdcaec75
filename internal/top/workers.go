package top

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Workers reads the metrics of ingests.
type Workers struct {
	Client *http.Client
	URLs   []string // URLs of their admin ports
	// Refused returns the error for an answer other than 200.
	Refused func(*http.Response) error

	last map[string]counters // the last metrics, by URL
}

// counters has the metrics of an ingest at a time.
type counters struct {
	at              time.Time
	name            string
	frames, refused float64
	busUp           bool
}

const (
	askTimeout = 2 * time.Second
	askBytes   = 16 << 20
)

// add reads the metrics of the ingests, and adds them to the paths that are known from the bus.
func (w *Workers) add(ctx context.Context, ingests []Ingest, now time.Time) []Ingest {
	answers, faults := make([]counters, len(w.URLs)), make([]error, len(w.URLs))
	var asked sync.WaitGroup
	for i, url := range w.URLs {
		asked.Go(func() { answers[i], faults[i] = w.ask(ctx, url, now) })
	}
	asked.Wait()
	if w.last == nil {
		w.last = make(map[string]counters)
	}
	for i, url := range w.URLs {
		was := w.last[url]
		if faults[i] != nil {
			ingests = put(ingests, Ingest{Name: was.name, Worker: url, Fault: faults[i].Error()})
			continue
		}
		is := answers[i]
		shown := Ingest{Name: is.name, Worker: url, BusUp: &is.busUp}
		if seconds := is.at.Sub(was.at).Seconds(); was.name == is.name && seconds > 0 && is.frames >= was.frames && is.refused >= was.refused {
			frames, refused := (is.frames-was.frames)/seconds, (is.refused-was.refused)/seconds
			shown.PerSecond, shown.Refused = &frames, &refused
		}
		w.last[url] = is
		ingests = put(ingests, shown)
	}
	return ingests
}

// put replaces the ingest that has the same name as of. If there is none, put appends of.
func put(ingests []Ingest, of Ingest) []Ingest {
	i := slices.IndexFunc(ingests, func(x Ingest) bool { return of.Name != "" && x.Name == of.Name && x.Worker == "" })
	if i < 0 {
		return append(ingests, of)
	}
	of.Seen = ingests[i].Seen
	if of.PerSecond == nil {
		of.PerSecond = ingests[i].PerSecond
	}
	ingests[i] = of
	return ingests
}

// ask reads the metrics of an ingest.
func (w *Workers) ask(ctx context.Context, url string, now time.Time) (c counters, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/metrics", nil)
	if err != nil {
		return c, err
	}
	response, err := w.Client.Do(request)
	if err != nil {
		return c, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return c, fmt.Errorf("%s answers %w", url, w.Refused(response))
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(response.Body, askBytes))
	if err != nil {
		return c, fmt.Errorf("read the metrics of %s: %w", url, err)
	}
	c = counters{at: now, frames: sum(families["oona_ingest_frames_total"]), refused: sum(families["oona_ingest_rejected_total"]), busUp: sum(families["oona_bus_up"]) > 0}
	for _, m := range families["oona_ingest_info"].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "name" {
				c.name = l.GetValue()
			}
		}
	}
	if c.name == "" {
		return c, fmt.Errorf("%s is not the admin port of an ingest: it has no oona_ingest_info", url)
	}
	return c, nil
}

// sum returns the sum of all series of a family.
func sum(family *dto.MetricFamily) (total float64) {
	for _, m := range family.GetMetric() {
		total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
	}
	return total
}
