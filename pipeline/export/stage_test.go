package export_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/pipeline/export"
	"github.com/morphogenetic/oona/schemas/avro"
)

func TestLastWindowAndTotals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		loss := summarize("reconstruction_loss", 1, 2, 6)
		loss.Worst = []oona.SeedValue{{Seed: 7, Value: 6}, {Seed: 3, Value: 2}}
		f.send(rollup(oona.Health, "r", "enc.0", loss))
		f.send(rollup(oona.Performance, "r", "enc.0", summarize("improvement", -1)))
		time.Sleep(10 * time.Second)
		f.send(rollup(oona.Health, "r", "enc.0", summarize("reconstruction_loss", 4)))
		f.send(rollup(oona.Performance, "r", "enc.0"))

		f.expect(10, "kasmina_layer_frames_total", "run=r", "layer=enc.0")
		f.expect(100, "kasmina_layer_readings_total")
		f.expect(2, "kasmina_layer_duplicate_frames_total")
		f.expect(4, "kasmina_layer_health", "metric=reconstruction_loss")
		f.expect(1, "kasmina_layer_performance", "metric=improvement")

		f.expect(4, "kasmina_layer_health_window_mean", "metric=reconstruction_loss")
		f.expect(0, "kasmina_layer_health_window_stddev")
		f.absent("kasmina_layer_health_window_worst_seed")      // the last window named none
		f.absent("kasmina_layer_performance_window_mean")       // nor had any improvement
		f.expect(6, "kasmina_layer_seeds", "state=DORMANT")     // all states are shown,
		f.expect(0, "kasmina_layer_seeds", "state=ROLLED_BACK") // those without seeds too
		f.expect(10, "kasmina_layer_seeds_seen")
		f.expect(4, "kasmina_layer_seeds_active")
		f.expect(0.5, "kasmina_layer_window_frames_per_second")
		f.expect(5, "kasmina_layer_window_readings_per_second")
		f.expect(0.4, "kasmina_layer_window_steps_per_second")
		f.expect(1.5, "kasmina_layer_window_delay_seconds")
		f.expect(float64(time.Now().Unix()), "kasmina_layer_health_window_end_timestamp_seconds")
		if got, want := f.stage.Counts(), (export.Counts{Rollups: 4}); got != want {
			t.Errorf("counts %+v, want %+v", got, want)
		}
	})
}

func TestWorstSeedsByRank(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *export.Config) { c.WorstSeeds = 2 })
		loss := summarize("reconstruction_loss", 1, 2, 6)
		loss.Worst = []oona.SeedValue{{Seed: 7, Value: 6}, {Seed: 3, Value: 2}, {Seed: 1, Value: 1}}
		f.send(rollup(oona.Health, "r", "enc.0", loss))
		f.expect(7, "kasmina_layer_health_window_worst_seed", "rank=1")
		f.expect(6, "kasmina_layer_health_window_worst_value", "rank=1")
		f.expect(3, "kasmina_layer_health_window_worst_seed", "rank=2")
		f.absent("kasmina_layer_health_window_worst_seed", "rank=3")
	})
}

func TestSamplesThatAreNoNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		nan, inf := summarize("gradient_norm"), summarize("weight_norm", 1)
		nan.NotMeasured, inf.Infinite = 9, 3
		f.send(rollup(oona.Health, "r", "enc.0", nan, inf))
		f.expect(9, "kasmina_layer_health_not_measured_total", "metric=gradient_norm")
		f.expect(3, "kasmina_layer_health_infinite_total", "metric=weight_norm")
		f.expect(0, "kasmina_layer_health", "metric=gradient_norm")
		f.expect(1, "kasmina_layer_health", "metric=weight_norm")
		f.absent("kasmina_layer_health_window_mean", "metric=gradient_norm") // 0 would be a lie
	})
}

// An aggregator that starts from the beginning of the log emits everything a second
// time, into the same topics.
func TestReemissionIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		for i := range 20 {
			f.send(rollup(oona.Health, "r", "enc.0", summarize("weight_norm", float64(i+1))))
			f.send(rollup(oona.Performance, "r", "enc.0"))
		}
		for i, payload := range f.sent {
			f.append(f.sentTo[i], 0, payload)
		}
		f.send(rollup(oona.Health, "r", "enc.0", summarize("weight_norm", 100)))

		f.expect(21, "kasmina_layer_health")
		f.expect(100, "kasmina_layer_frames_total")
		f.expect(100, "kasmina_layer_health_window_mean")
		f.expect(20, "oona_exporter_repeats_total", "group=health")
		if got, want := f.stage.Counts(), (export.Counts{Rollups: 41, Repeats: 40}); got != want {
			t.Errorf("counts %+v, want %+v", got, want)
		}
	})
}

// Two contents of one window are an alarm, whichever trigger the second has,
// and the first stands.
func TestConflictingRollups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		first := rollup(oona.Health, "r", "enc.0", summarize("weight_norm", 1))
		f.send(first)
		for _, change := range []func(*oona.Rollup){
			func(r *oona.Rollup) { r.Frames++ },                   // at the same trigger
			func(r *oona.Rollup) { r.Trigger.Offset += 10 },       // at a later one
			func(r *oona.Rollup) { r.Watermark, r.Frames = 7, 9 }, // once more
		} {
			other := *first
			change(&other)
			other.Hash = other.ContentHash()
			f.append(f.sentTo[0], 0, avro.AppendRollup(nil, &other))
		}
		f.send(rollup(oona.Health, "r", "enc.0", summarize("weight_norm", 2)))
		f.expect(3, "oona_exporter_conflicts_total", "group=health")
		f.expect(2, "oona_exporter_rollups_total", "group=health")
		f.expect(2, "kasmina_layer_health_window_mean")
	})
}

func TestTriggersAreOfAPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startOn(t, newTape(t, 2), nil)
		r := rollup(oona.Health, "r", "enc.0", summarize("weight_norm", 1))
		r.Trigger = oona.Trigger{Offset: 10, Index: 1}
		for _, step := range []struct {
			partition int32
			trigger   oona.Trigger
			layer     oona.LayerID
			fresh     float64
		}{
			{0, oona.Trigger{Offset: 0}, "a", 1}, // the very first record's
			{0, oona.Trigger{Offset: 0}, "a", 1},
			{0, oona.Trigger{Offset: 10, Index: 1}, "a", 2},
			{0, oona.Trigger{Offset: 10, Index: 0}, "a", 2},
			{0, oona.Trigger{Offset: 10, Index: 2}, "a", 3},
			{1, oona.Trigger{Offset: 10, Index: 2}, "a", 4}, // another timeline of the layer: they add up
			{0, oona.Trigger{Offset: 9, Index: 9}, "a", 4},
		} {
			r.Trigger, r.Layer = step.trigger, step.layer
			r.Start = r.End - oona.Micros(1000+10*step.trigger.Offset) - oona.Micros(step.trigger.Index) // another window
			f.append(topics.LayerHealth, step.partition, avro.AppendRollup(nil, r))
			f.expect(step.fresh, "kasmina_layer_health", "layer=a")
		}
	})
}

func TestBadRecordsAreSkippedAndCounted(t *testing.T) {
	good := func() *oona.Rollup {
		return rollup(oona.Health, "r", "enc.0", summarize("gradient_norm", 1), summarize("weight_norm", 1, 2, -3))
	}
	broken := func(breakIt func(*oona.Rollup)) []byte {
		r := good()
		breakIt(r)
		r.Trigger.Offset = 1 << 40 // would hide all later ones, were it taken
		return avro.AppendRollup(nil, r)
	}
	fingerprint := avro.AppendRollup(nil, good())
	fingerprint[4] ^= 0xff
	head := avro.AppendRollup(nil, &oona.Rollup{Group: oona.Health})
	head = head[:len(head)-1-1-oona.StateCount-1] // without seeds_by_state and metrics
	varints := func(vs ...int64) []byte {
		b := bytes.Clone(head)
		for _, v := range vs {
			b = binary.AppendVarint(b, v)
		}
		return b
	}
	for name, payload := range map[string][]byte{
		"nothing":           nil,
		"JSON":              []byte(`{"run_id":"r"}`),
		"a container":       []byte("Obj\x01\x00"),
		"gzip":              {0x1f, 0x8b, 8, 0},
		"a frame":           avro.AppendFrame(nil, &oona.Frame{Run: "r"}),
		"2^40 states":       varints(1 << 40),
		"least count":       varints(math.MinInt64, 1),
		"block size lies":   varints(-1, 7, 0, 0, 0),
		"2^40 metrics":      varints(0, 1<<40),
		"many blocks":       append(varints(), bytes.Repeat([]byte{2, 0}, 100_000)...),
		"run not UTF-8":     broken(func(r *oona.Rollup) { r.Run = "a\xff" }),
		"no framing":        []byte("not a rollup at all"),
		"wrong fingerprint": fingerprint,
		"cut off":           fingerprint[:len(fingerprint)-7],
		"a tick":            avro.AppendTick(nil, oona.Tick{Worker: "w", WrittenAt: 1}),
		"two":               append(avro.AppendRollup(nil, good()), avro.AppendRollup(nil, good())...),
		"other group":       broken(func(r *oona.Rollup) { r.Group = oona.Performance }),
		"run with newline":  broken(func(r *oona.Rollup) { r.Run = "a\nb" }),
		"layer with quotes": broken(func(r *oona.Rollup) { r.Layer = `a"b` }),
		"no layer":          broken(func(r *oona.Rollup) { r.Layer = "" }),
		"metric name":       broken(func(r *oona.Rollup) { r.Metrics[1].Name = "weight norm" }),
		"metric twice":      broken(func(r *oona.Rollup) { r.Metrics[1].Name = "gradient_norm" }),
		"backward window":   broken(func(r *oona.Rollup) { r.Start = r.End + 1 }),
		"negative frames":   broken(func(r *oona.Rollup) { r.Frames = -1 }),
		"negative seeds":    broken(func(r *oona.Rollup) { r.Seeds.ByState[2] = -1 }),
		"negative samples":  broken(func(r *oona.Rollup) { r.Metrics[1].NotMeasured = -1 }),
		"count is not sum":  broken(func(r *oona.Rollup) { r.Metrics[1].Count++ }),
		"bucket order":      broken(func(r *oona.Rollup) { r.Metrics[1].Histogram.Positive.Indexes = []int32{32, 0} }),
		"bucket range":      broken(func(r *oona.Rollup) { r.Metrics[1].Histogram.Negative.Indexes = []int32{1 << 20} }),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, nil)
				f.append(topics.LayerHealth, 0, payload)
				f.send(good())
				if got, want := f.stage.Counts(), (export.Counts{Rollups: 1, Undecodable: 1}); got != want {
					t.Errorf("counts %+v, want %+v", got, want)
				}
				f.expect(1, "oona_exporter_undecodable_total", "group=health")
				f.expect(3, "kasmina_layer_health", "metric=weight_norm", "layer=enc.0")
				f.expect(2, "oona_exporter_next_offset", "topic="+topics.LayerHealth)
			})
		})
	}
}

// strange is a reader whose messages are not of a bus.
type strange struct {
	*memory.Reader
	messages chan *message.Message
}

func (s strange) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		select {
		case msg := <-s.messages:
			out <- msg
			<-ctx.Done()
		case <-ctx.Done():
		}
	}()
	return out, nil
}

func TestMessageWithoutPositionIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := strange{newTape(t, 1).reader, make(chan *message.Message)}
		f := startOnReader(t, log, prometheus.NewRegistry(), nil)
		msg := message.NewMessage("", avro.AppendRollup(nil, rollup(oona.Health, "r", "enc.0")))
		log.messages <- msg
		<-msg.Acked()
		if got, want := f.stage.Counts(), (export.Counts{Undecodable: 1}); got != want {
			t.Errorf("counts %+v, want %+v", got, want)
		}
	})
}

func TestReadyAtTheHighWaterMarkFoundAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newTape(t, 2)
		for range 42 {
			log.append(t, topics.LayerHealth, 0, []byte("a record that is no rollup counts as read"))
		}
		for range 4 {
			log.append(t, topics.LayerPerformance, 0, []byte("too"))
		}
		err := errors.Join(
			log.bus.Trim(topics.LayerHealth, 0, 40), log.bus.Trim(topics.LayerPerformance, 0, 3),
			log.bus.Freeze(topics.LayerHealth, 0), log.bus.Freeze(topics.LayerPerformance, 0))
		f := startOn(t, log, nil)
		synctest.Wait() // until both topics are subscribed to
		notReady := func() {
			t.Helper()
			if err := f.stage.Ready(); !errors.Is(err, export.ErrCatchingUp) {
				t.Errorf("ready: %v, want %v", err, export.ErrCatchingUp)
			}
		}
		notReady()
		err = errors.Join(err, log.bus.Thaw(topics.LayerHealth, 0))
		synctest.Wait()
		notReady()
		err = errors.Join(err, log.bus.Thaw(topics.LayerPerformance, 0))
		f.send(rollup(oona.Performance, "r", "enc.0"))
		if err := errors.Join(err, f.stage.Ready()); err != nil {
			t.Errorf("not ready: %v", err)
		}
	})
}

func TestNotReadyBeforeItRuns(t *testing.T) {
	known, err := catalogue.Default()
	if err != nil {
		t.Fatal(err)
	}
	s, err := export.New(export.DefaultConfig(), newTape(t, 1).reader, known, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(); !errors.Is(err, export.ErrCatchingUp) {
		t.Errorf("ready: %v", err)
	}
}

// What the log holds from before the start is shown as the last window, but
// Prometheus has it in its sums already.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := start(t, nil)
		first.send(ended(20*time.Second, oona.Health, "r", "enc.0", summarize("weight_norm", 1, 1)))
		first.send(ended(20*time.Second, oona.Performance, "r", "enc.0"))
		first.send(ended(10*time.Second, oona.Health, "r", "enc.0", summarize("weight_norm", 2, 2)))
		first.send(ended(10*time.Second, oona.Performance, "r", "enc.0"))
		first.expect(4, "kasmina_layer_health")

		second := startOn(t, first.tape.again(t), nil)
		synctest.Wait()
		for _, name := range []string{
			"kasmina_layer_health_window_mean", "kasmina_layer_health_window_end_timestamp_seconds",
			"kasmina_layer_window_frames_per_second", "kasmina_layer_seeds_active",
		} {
			second.expect(first.value(name), name)
		}
		if first.stage.Counts() != second.stage.Counts() {
			t.Errorf("counts %+v, before the restart %+v", second.stage.Counts(), first.stage.Counts())
		}
		second.expect(0, "kasmina_layer_health")
		second.expect(0, "kasmina_layer_frames_total")

		first.send(rollup(oona.Health, "r", "enc.0", summarize("weight_norm", 3)))
		first.send(rollup(oona.Performance, "r", "enc.0"))
		synctest.Wait()
		first.expect(5, "kasmina_layer_health")
		second.expect(1, "kasmina_layer_health")
		second.expect(5, "kasmina_layer_frames_total")
	})
}

func TestRunEndsWhereTheLogEnds(t *testing.T) {
	known, err := catalogue.Default()
	if err != nil {
		t.Fatal(err)
	}
	run := func(log bus.Reader) error {
		s, err := export.New(export.DefaultConfig(), log, known, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return s.Run(ctx)
	}
	ended := newTape(t, 1).reader
	go func() {
		for ended.Ranges(topics.LayerHealth) == nil || ended.Ranges(topics.LayerPerformance) == nil {
			time.Sleep(time.Millisecond)
		}
		if err := ended.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := run(ended); !errors.Is(err, export.ErrLogEnded) {
		t.Errorf("the reader has ended: got %v", err)
	}
	empty, err := memory.New().Reader(bus.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := run(empty); !errors.Is(err, bus.ErrNoTopic) {
		t.Errorf("a topic cannot be subscribed to: got %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for field, change := range map[string]func(*export.Config){
		"Topics":      func(c *export.Config) { c.Topics = oona.Topics{} },
		"MaxRuns":     func(c *export.Config) { c.MaxRuns = 0 },
		"MaxLayers":   func(c *export.Config) { c.MaxLayers = -1 },
		"MaxMetrics":  func(c *export.Config) { c.MaxMetrics = 0 },
		"WorstSeeds":  func(c *export.Config) { c.WorstSeeds = -1 },
		"SilentAfter": func(c *export.Config) { c.SilentAfter = 0 },
		"Buckets[1]":  func(c *export.Config) { c.Buckets = []float64{1, 1} },
	} {
		cfg := export.DefaultConfig()
		change(&cfg)
		var fault *oona.FieldError
		if err := cfg.Validate(); !errors.As(err, &fault) || fault.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if err := export.DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

func TestCollectWhileConsuming(t *testing.T) {
	f := start(t, nil)
	var scrapers sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		scrapers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				families, err := f.registry.Gather()
				if err != nil {
					t.Errorf("gather: %v", err)
					return
				}
				for _, family := range families {
					if family.GetName() != "kasmina_layer_health" {
						continue
					}
					for _, m := range family.Metric {
						if err := consistent(m.Histogram); err != nil {
							t.Error(err)
						}
					}
				}
			}
		})
	}
	const windows = 60
	for i := range windows {
		for layer := range 4 {
			id := oona.LayerID(fmt.Sprintf("enc.%d", layer))
			f.send(rollup(oona.Health, "r", id, summarize("weight_norm", float64(i+1), -float64(i+1), 0)))
		}
	}
	close(done)
	scrapers.Wait()
	f.expect(3*windows, "kasmina_layer_health", "layer=enc.2")
}
