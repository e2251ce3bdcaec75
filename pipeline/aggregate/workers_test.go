package aggregate_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// workers are aggregators of one group on one bus.
type workers struct {
	t      *testing.T
	bus    *memory.Bus
	topics oona.Topics
	begin  time.Time
	in     bus.Publisher
	all    [2]*worker
}

type worker struct {
	stage  *aggregate.Stage
	member *memory.Member
	stop   func() error
}

const workerPartitions = 3

func newWorkers(t *testing.T) *workers {
	t.Helper()
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	w := &workers{t: t, bus: memory.New(), topics: topics, begin: time.Now()}
	if _, err := w.bus.Apply(t.Context(), topics.Specs(workerPartitions)); err != nil {
		t.Fatal(err)
	}
	if w.in, err = w.bus.Publisher(bus.PublisherOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := range w.all {
		w.all[i] = w.start()
	}
	return w
}

func (w *workers) start() *worker {
	w.t.Helper()
	out, err := w.bus.Publisher(bus.RollupOptions())
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := aggregate.Config{Worker: "w0", Topics: w.topics, Windows: windows.DefaultConfig(), Limits: oona.DefaultFrameLimits}
	catalogue := func(name string) oona.Metric { return oona.Metric{Name: name, Group: oona.Health} }
	stage, err := aggregate.New(cfg, windows.Always(catalogue), out, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := w.bus.Member(bus.MemberOptions{Group: aggregate.DefaultGroup}, stage)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(stage.Run(ctx, m), m.Close(), out.Close()) }()
	return &worker{stage, m.(*memory.Member), func() error { cancel(); return <-ended }}
}

// replace ends a worker and starts another. To kill a worker, replace first expels it from the
// group, so that it cannot commit any more.
func (w *workers) replace(i int, kill bool) {
	w.t.Helper()
	if kill {
		w.all[i].member.Expel()
	}
	if err := w.all[i].stop(); err != nil {
		w.t.Errorf("a worker ended: %v", err)
	}
	w.all[i] = w.start()
}

// step lets a random event happen, and then half a second to three seconds pass.
func (w *workers) step(random *rand.Rand) {
	i := random.IntN(len(w.all))
	switch random.IntN(12) {
	case 0, 1:
		w.replace(i, true)
	case 2:
		w.replace(i, false)
	case 3: // a zombie: it does not know that it has lost its partitions
		w.all[i].member.Expel()
	case 4:
		w.all[i].member.Notice()
	case 5:
		closed := []string{w.topics.LayerHealth, w.topics.Late, ""}[random.IntN(3)]
		w.bus.Refuse(func(topic string, _ int32) error {
			if topic == closed {
				return errBusDown
			}
			return nil
		})
	}
	time.Sleep(500*time.Millisecond + time.Duration(random.Int64N(int64(2500*time.Millisecond))))
}

// send writes frames, some of them late or twice, and records that are not frames.
func (w *workers) send(random *rand.Rand, f *fixture) {
	w.t.Helper()
	for range random.IntN(8) {
		frame := f.frame(time.Since(w.begin))
		frame.Run = oona.RunID([]string{"a", "b"}[random.IntN(2)])
		frame.Layer = oona.LayerID([]string{"enc.0", "enc.1", "enc.2"}[random.IntN(3)])
		if random.IntN(10) == 0 {
			frame.ObservedAt -= 30_000_000
		}
		payload := avro.AppendFrame(nil, frame)
		if random.IntN(20) == 0 {
			payload = []byte("not a frame")
		}
		for range 1 + random.IntN(20)/19 {
			msg := bus.NewMessage(payload, bus.Target{Key: oona.Key(frame.Run, frame.Layer)})
			if err := w.in.Publish(w.t.Context(), w.topics.SeedMetrics, msg); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// read returns the messages of a partition.
func (w *workers) read(topic string, of int32) (all []*message.Message) {
	w.t.Helper()
	err := w.bus.Read(w.t.Context(), topic, bus.Range{Partition: of, From: 0, End: 1 << 40}, func(msg *message.Message) error {
		all = append(all, msg)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// alone folds a partition's log with one stage, without faults.
func (w *workers) alone(of int32) *fixture {
	w.t.Helper()
	assignment := wholeAssignment()
	assignment.Partition = of
	f := startWith(w.t, assignment, nil)
	for _, msg := range w.read(w.topics.SeedMetrics, of) {
		at, err := bus.PositionOf(msg)
		if err != nil {
			w.t.Fatal(err)
		}
		f.feed.append(msg.Payload, at.Appended.Time(), msg.Metadata)
	}
	f.stop()
	return f
}

// fresh returns the rollups that a reader accepts: those whose triggers ascend.
func fresh(t *testing.T, messages []*message.Message) (all []string) {
	t.Helper()
	var last oona.Trigger
	for _, msg := range messages {
		var r oona.Rollup
		if _, err := avro.DecodeRollup(msg.Payload, &r); err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 || r.Trigger.After(last) {
			last = r.Trigger
			all = append(all, string(msg.Payload))
		}
	}
	return all
}

// origins returns the offsets of the records in a side topic that come from a partition, without
// repeats.
func origins(messages []*message.Message, of string) (all []string) {
	for _, msg := range messages {
		if msg.Metadata[oona.HeaderErrorPartition] == of {
			all = append(all, msg.Metadata[oona.HeaderErrorOffset])
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Workers are killed, expelled from the group without noticing it, stopped, and cut off from
// topics. The output that readers accept equals, byte for byte, the output of one worker without
// faults.
func TestWorkersThatAreDisturbed(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			w := newWorkers(t)
			f := &fixture{begin: w.begin}
			for range 60 {
				w.send(random, f)
				w.step(random)
			}
			w.bus.Refuse(nil)
			for _, one := range w.all {
				one.member.Notice()
			}
			time.Sleep(2 * time.Minute) // ticks close the last windows
			for _, one := range w.all {
				if err := one.stop(); err != nil {
					t.Errorf("a worker ended: %v", err)
				}
			}
			if err := w.in.Close(); err != nil {
				t.Error(err)
			}
			rollups, rejected := 0, 0
			for p := range int32(workerPartitions) {
				alone := w.alone(p)
				for _, topic := range []string{w.topics.LayerHealth, w.topics.LayerPerformance} {
					got, want := fresh(t, w.read(topic, p)), fresh(t, alone.out.of(t, topic))
					if !slices.Equal(got, want) {
						t.Errorf("seed %d, %s/%d: %d rollups, want %d, or others", seed, topic, p, len(got), len(want))
					}
					rollups += len(got)
				}
				for _, topic := range []string{w.topics.Late, w.topics.SeedMetricsDead} {
					got, want := origins(w.sides(topic), string('0'+p)), origins(alone.out.of(t, topic), string('0'+p))
					if !slices.Equal(got, want) {
						t.Errorf("seed %d, %s: records %v of partition %d, want %v", seed, topic, got, p, want)
					}
					rejected += len(got)
				}
			}
			if rollups < 20 || rejected == 0 {
				t.Errorf("seed %d tests little: %d rollups, %d rejected records", seed, rollups, rejected)
			}
		})
	}
}

// sides returns the records of all partitions of a side topic.
func (w *workers) sides(topic string) (all []*message.Message) {
	w.t.Helper()
	extents, err := w.bus.Extents(w.t.Context(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	for p := range extents[topic] {
		all = append(all, w.read(topic, int32(p))...)
	}
	return all
}
