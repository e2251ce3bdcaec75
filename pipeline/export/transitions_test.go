package export_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/export"
	"github.com/morphogenetic/oona/schemas/avro"
)

const notShown = `# HELP oona_exporter_future_events_total Events whose time is more than a minute later than their append time. They are counted as transitions, but their time is not shown. The end of a run is not shown then.
# TYPE oona_exporter_future_events_total counter
oona_exporter_future_events_total 2
# HELP oona_exporter_hidden_events_total Events of layers, and ends of runs, that are not shown because the limits of runs or layers are reached.
# TYPE oona_exporter_hidden_events_total counter
oona_exporter_hidden_events_total 1
# HELP oona_exporter_undecodable_events_total Records of the topics of events that are not events.
# TYPE oona_exporter_undecodable_events_total counter
oona_exporter_undecodable_events_total 2
`

// TestTransitions: transitions are counted once, from the start of the exporter on, and the
// time of the last is known from before, too. A time of the future is not shown. What is
// beyond the limits is counted.
func TestTransitions(t *testing.T) {
	l := newTape(t, 1)
	const future = 1000 // from this sequence on, times are of the future
	event := func(layer oona.LayerID, seed oona.SeedID, sequence int64, from, to oona.State, ago time.Duration) {
		t.Helper()
		e := oona.SeedEvent{Run: "r", Layer: layer, Seed: seed, Sequence: sequence, At: oona.Micros(1_790_000_000+sequence) * 1_000_000, From: from, To: to}
		if sequence >= future {
			e.At = oona.MicrosOf(time.Now().Add(-ago + 2*time.Minute))
		}
		msg := bus.NewMessage(avro.AppendEvent(nil, &e), bus.Target{Key: oona.SeedKey(e.Run, e.Layer, e.Seed), Time: oona.MicrosOf(time.Now().Add(-ago))})
		if err := l.publisher.Publish(t.Context(), topics.Event(&e), msg); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.bus.Apply(t.Context(), []oona.TopicSpec{{Name: topics.Germinated, Partitions: 1}, {Name: topics.Grafted, Partitions: 1}, {Name: topics.Fossilized, Partitions: 1}, {Name: topics.Culled, Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	cfg := export.DefaultConfig()
	cfg.Topics, cfg.MaxLayers = topics, 2
	event("a", 1, 0, oona.Dormant, oona.Germinated, time.Hour)
	registry := prometheus.NewRegistry()
	var log bytes.Buffer
	x, err := export.NewTransitions(cfg, registry, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	event("a", 2, 0, oona.Dormant, oona.Germinated, 0)
	event("a", 2, 0, oona.Dormant, oona.Germinated, 0) // again
	event("a", 3, 1, oona.Dormant, oona.Germinated, 0)
	event("a", 5, 0, oona.Dormant, oona.Germinated, 0) // earlier than that of seed 3
	event("b", 1, 7, oona.Evaluating, oona.Culled, 0)
	event("b", 2, 8, oona.FineTuning, oona.Fossilized, 0)
	event("a", 4, future, oona.Dormant, oona.Germinated, 0)
	event("b", 3, future, oona.Training, oona.Grafting, 0)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx, l.reader, noEnds) }()
	until := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Minute); !done(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s does not come", what)
			}
		}
	}
	until("the last event", func() bool { return testutil.CollectAndCount(x) == 7 })
	l.read(t)
	event("c", 1, 0, oona.Dormant, oona.Germinated, 0)
	cut := oona.SeedEvent{Run: "r", Layer: "a", Seed: 9, At: 1_790_000_000_000_000, To: oona.Culled}
	for _, rubbish := range [][]byte{[]byte("rubbish"), append(avro.AppendEvent(nil, &cut), 0)} { // nothing may follow an event
		if err := l.publisher.Publish(t.Context(), topics.Culled, bus.NewMessage(rubbish, bus.Target{})); err != nil {
			t.Fatal(err)
		}
	}
	until("what is not shown", func() bool {
		return testutil.GatherAndCompare(registry, strings.NewReader(notShown), "oona_exporter_future_events_total", "oona_exporter_hidden_events_total", "oona_exporter_undecodable_events_total") == nil
	})
	const want = `
# HELP kasmina_layer_transition_timestamp_seconds When a seed of the layer last entered the state, according to its event.
# TYPE kasmina_layer_transition_timestamp_seconds gauge
kasmina_layer_transition_timestamp_seconds{layer="a",run="r",state="GERMINATED"} 1.790000001e+09
kasmina_layer_transition_timestamp_seconds{layer="b",run="r",state="CULLED"} 1.790000007e+09
kasmina_layer_transition_timestamp_seconds{layer="b",run="r",state="FOSSILIZED"} 1.790000008e+09
# HELP kasmina_layer_transitions_total Events of seeds that entered the state since the exporter started.
# TYPE kasmina_layer_transitions_total counter
kasmina_layer_transitions_total{layer="a",run="r",state="GERMINATED"} 4
kasmina_layer_transitions_total{layer="b",run="r",state="CULLED"} 1
kasmina_layer_transitions_total{layer="b",run="r",state="FOSSILIZED"} 1
kasmina_layer_transitions_total{layer="b",run="r",state="GRAFTING"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want+notShown)); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "topic="+topics.Culled); n != 2 {
		t.Errorf("%d lines about records that are no events, want 2: %s", n, &log)
	}
}

// TestRepeatedRequests: requests of many events that are sent again count once.
func TestRepeatedRequests(t *testing.T) {
	l := newTape(t, 1)
	if _, err := l.bus.Apply(t.Context(), []oona.TopicSpec{{Name: topics.Germinated, Partitions: 1}, {Name: topics.Grafted, Partitions: 1}, {Name: topics.Fossilized, Partitions: 1}, {Name: topics.Culled, Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	cfg := export.DefaultConfig()
	cfg.Topics = topics
	x, err := export.NewTransitions(cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const seeds = 1024
	for range 3 {
		for seed := range oona.SeedID(seeds) {
			e := oona.SeedEvent{Run: "r", Layer: "a", Seed: seed, At: 1_790_000_000_000_000, From: oona.Dormant, To: oona.Germinated}
			msg := bus.NewMessage(avro.AppendEvent(nil, &e), bus.Target{Key: oona.SeedKey(e.Run, e.Layer, e.Seed)})
			if err := l.publisher.Publish(t.Context(), topics.Germinated, msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	last := oona.SeedEvent{Run: "s", Layer: "a", At: 1_790_000_000_000_000, From: oona.Dormant, To: oona.Germinated}
	if err := l.publisher.Publish(t.Context(), topics.Germinated, bus.NewMessage(avro.AppendEvent(nil, &last), bus.Target{Key: oona.SeedKey(last.Run, last.Layer, last.Seed)})); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx, l.reader, noEnds) }()
	for deadline := time.Now().Add(5 * time.Minute); testutil.CollectAndCount(x, "kasmina_layer_transitions_total") < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the last event does not come")
		}
	}
	const want = `
# HELP kasmina_layer_transitions_total Events of seeds that entered the state since the exporter started.
# TYPE kasmina_layer_transitions_total counter
kasmina_layer_transitions_total{layer="a",run="r",state="GERMINATED"} 1024
kasmina_layer_transitions_total{layer="a",run="s",state="GERMINATED"} 1
`
	if err := testutil.CollectAndCompare(x, strings.NewReader(want), "kasmina_layer_transitions_total"); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestSilentRunsMakeRoom: if there are too many runs, one whose events were long ago makes room
// for the next, as with rollups. Runs that are not silent stay, and events that come late do
// not displace newer ones.
func TestSilentRunsMakeRoom(t *testing.T) {
	l := newTape(t, 1)
	if _, err := l.bus.Apply(t.Context(), []oona.TopicSpec{{Name: topics.Germinated, Partitions: 1}, {Name: topics.Grafted, Partitions: 1}, {Name: topics.Fossilized, Partitions: 1}, {Name: topics.Culled, Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	event := func(run oona.RunID, layer oona.LayerID, ago time.Duration) {
		t.Helper()
		e := oona.SeedEvent{Run: run, Layer: layer, At: 1_790_000_000_000_000, From: oona.Dormant, To: oona.Germinated}
		msg := bus.NewMessage(avro.AppendEvent(nil, &e), bus.Target{Key: oona.SeedKey(e.Run, e.Layer, e.Seed), Time: oona.MicrosOf(time.Now().Add(-ago))})
		if err := l.publisher.Publish(t.Context(), topics.Germinated, msg); err != nil {
			t.Fatal(err)
		}
	}
	cfg := export.DefaultConfig()
	cfg.Topics, cfg.MaxRuns, cfg.MaxTotalLayers = topics, 3, 4
	registry := prometheus.NewRegistry()
	x, err := export.NewTransitions(cfg, registry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	event("longest", "a", 3*time.Hour)
	event("long", "a", 2*time.Hour)
	event("live", "a", time.Minute)
	event("before", "a", 4*time.Hour) // hidden
	event("next", "a", time.Minute)   // for longest
	event("next", "b", time.Minute)
	event("next", "c", time.Minute) // the fifth layer, for long
	event("next", "d", time.Minute) // hidden: only live runs are left
	event("last", "a", 0)           // the same
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx, l.reader, noEnds) }()
	const want = `
# HELP kasmina_layer_transition_timestamp_seconds When a seed of the layer last entered the state, according to its event.
# TYPE kasmina_layer_transition_timestamp_seconds gauge
kasmina_layer_transition_timestamp_seconds{layer="a",run="live",state="GERMINATED"} 1.79e+09
kasmina_layer_transition_timestamp_seconds{layer="a",run="next",state="GERMINATED"} 1.79e+09
kasmina_layer_transition_timestamp_seconds{layer="b",run="next",state="GERMINATED"} 1.79e+09
kasmina_layer_transition_timestamp_seconds{layer="c",run="next",state="GERMINATED"} 1.79e+09
# HELP oona_exporter_hidden_events_total Events of layers, and ends of runs, that are not shown because the limits of runs or layers are reached.
# TYPE oona_exporter_hidden_events_total counter
oona_exporter_hidden_events_total 3
`
	var wrong error
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(time.Millisecond) {
		if wrong = testutil.GatherAndCompare(registry, strings.NewReader(want), "kasmina_layer_transition_timestamp_seconds", "oona_exporter_hidden_events_total"); wrong == nil || time.Now().After(deadline) {
			break
		}
	}
	if wrong != nil {
		t.Error(wrong)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// noEnds takes the ends of runs where no test is about them.
func noEnds(*oona.RunEnd, time.Time, time.Time) bool { return true }
