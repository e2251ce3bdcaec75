package aggregate

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// The log of the benchmark: 64 layers of 1,000 seeds by 8 metrics, over 50
// seconds in which a slow producer holds all windows open.
const (
	replayLayers = 64
	replaySeeds  = 1_000
	replayBytes  = 1 << 30
	replayChunk  = 512 // frames that are folded live and as a replay in turn
	replaySpan   = 50 * time.Second
)

// BenchmarkReplay decodes and folds 1 GiB of log with open windows, as an assignment
// does: live, and again as a successor that resumes from the commit at its end. The
// two take turns chunk by chunk, and alternate which is first. It reports the rates
// over the whole log, and the median over the chunks of the CPU time of live folding
// divided by the CPU time of a replay. Recovery promises more than 0.5.
func BenchmarkReplay(b *testing.B) {
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		b.Fatal(err)
	}
	stage, err := New(Config{Worker: "bench", Topics: topics, Windows: windows.DefaultConfig(), Limits: oona.DefaultFrameLimits},
		windows.Always(func(name string) oona.Metric { return oona.Metric{Name: name} }), nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	assignment := bus.Assignment{Topic: topics.SeedMetrics, Partitions: 1, Committed: bus.Commit{Offset: oona.NoOffset}}
	open := func(committed bus.Commit) *machine {
		assignment := assignment
		assignment.Committed, assignment.LogEnd = committed, math.MaxInt64
		opened, err := stage.Open(b.Context(), assignment)
		if err != nil {
			b.Fatal(err)
		}
		return opened.Machine.(*machine)
	}
	log := newReplayLog()
	first := open(assignment.Committed)
	for chunk := range log.chunks() {
		foldAll(b, first, chunk)
	}
	commit, err := first.Commit()
	if err != nil || commit.Offset != 0 {
		b.Fatalf("the commit is %+v, %v; all of the log is to be open", commit, err)
	}

	for b.Loop() {
		live, replay := open(assignment.Committed), open(commit)
		var liveTime, replayTime time.Duration
		var ratios []float64
		before := stage.Counts()
		for chunk := range log.chunks() {
			var l, r used
			if len(ratios)%2 == 0 {
				l = foldAll(b, live, chunk)
				r = foldAll(b, replay, chunk)
			} else {
				r = foldAll(b, replay, chunk)
				l = foldAll(b, live, chunk)
			}
			liveTime, replayTime = liveTime+l.wall, replayTime+r.wall
			ratios = append(ratios, l.cpu.Seconds()/r.cpu.Seconds())
		}
		after := stage.Counts()
		if folded, replayed := after.Folded-before.Folded, after.Replayed-before.Replayed; folded != int64(log.frames) || replayed != folded || live.engine.OpenWindows() != replay.engine.OpenWindows() {
			b.Fatalf("%d of %d frames folded, %d replayed; %d and %d windows are open", folded, log.frames, replayed, live.engine.OpenWindows(), replay.engine.OpenWindows())
		}
		slices.Sort(ratios)
		b.ReportMetric(float64(log.bytes)/liveTime.Seconds()/1e6, "live-MB/s")
		b.ReportMetric(float64(log.bytes)/replayTime.Seconds()/1e6, "replay-MB/s")
		b.ReportMetric(ratios[len(ratios)/2], "cpu:live/replay")
		b.ReportMetric(ratios[len(ratios)/10], "cpu:tenth")
		b.ReportMetric(ratios[len(ratios)-1-len(ratios)/10], "cpu:ninetieth")
		b.ReportMetric(float64(live.engine.OpenWindows()), "windows")
	}
	b.ReportMetric(0, "ns/op") // the time per operation has no meaning here
}

type used struct{ wall, cpu time.Duration }

func foldAll(b *testing.B, p *machine, chunk []replayRecord) used {
	b.Helper()
	began, cpu := time.Now(), processTime(b)
	for _, r := range chunk {
		if _, err := p.Fold(r.msg, r.at, nil); err != nil {
			b.Fatal(err)
		}
	}
	return used{time.Since(began), processTime(b) - cpu}
}

func processTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type replayRecord struct {
	msg *message.Message
	at  bus.Position
}

// replayLog generates the log chunk by chunk, the same each time.
type replayLog struct {
	frames  int
	bytes   int64
	begin   oona.Micros
	columns [16][]oona.Column // more than fits into a first-level cache
	frame   oona.Frame
}

func newReplayLog() *replayLog {
	l := &replayLog{begin: oona.MicrosOf(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range l.columns {
		for m := range 8 {
			column := oona.Column{Name: fmt.Sprintf("metric_%d", m), Values: make([]float32, replaySeeds)}
			for j := range column.Values {
				column.Values[j] = float32(rng.ExpFloat64())
			}
			l.columns[i] = append(l.columns[i], column)
		}
	}
	for j := range replaySeeds {
		l.frame.Seeds = append(l.frame.Seeds, oona.SeedID(j))
		l.frame.States = append(l.frame.States, oona.State(rng.IntN(oona.StateCount)))
	}
	l.frame.Run, l.frame.Epoch = "run", l.begin
	size := int64(len(l.record(1).msg.Payload))
	l.frames = int(replayBytes/size) + 1
	l.bytes = int64(l.frames) * size
	return l
}

// record returns the record at an offset. The slow producer writes the first one.
func (l *replayLog) record(offset int) replayRecord {
	f := &l.frame
	at := l.begin
	if l.frames > 0 {
		at += oona.Micros(int64(replaySpan/time.Microsecond) * int64(offset) / int64(l.frames))
	}
	f.Layer, f.Metrics = oona.LayerID(fmt.Sprintf("layer.%02d", offset%replayLayers)), l.columns[offset%len(l.columns)]
	f.Producer, f.Sequence, f.ObservedAt, f.Step = "fast", int64(offset), at, int64(offset)
	if offset == 0 {
		f.Producer = "slow"
	}
	msg := message.NewMessage("", avro.AppendFrame(nil, f))
	msg.Metadata[oona.HeaderPath] = "ingest-0"
	return replayRecord{msg, bus.Position{Offset: int64(offset), Appended: at}}
}

func (l *replayLog) chunks() func(yield func([]replayRecord) bool) {
	return func(yield func([]replayRecord) bool) {
		for from := 0; from < l.frames; from += replayChunk {
			var chunk []replayRecord
			for offset := from; offset < min(from+replayChunk, l.frames); offset++ {
				chunk = append(chunk, l.record(offset))
			}
			if !yield(chunk) {
				return
			}
		}
	}
}
