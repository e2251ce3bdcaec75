package replay_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/archive"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

const partitions = 3

// installation is a bus with aggregators, some of which are killed.
type installation struct {
	t      *testing.T
	bus    *memory.Bus
	topics oona.Topics
	random *rand.Rand
	in     bus.Publisher
	begin  time.Time
	sent   int64
	cfg    windows.Config
}

func known(name string) oona.Metric { return oona.Metric{Name: name, Group: oona.Health} }

func (i *installation) config() aggregate.Config {
	return aggregate.Config{Worker: "replay-test", Topics: i.topics, Windows: i.cfg, Limits: oona.DefaultFrameLimits}
}

func (i *installation) folder() *aggregate.Folder {
	i.t.Helper()
	f, err := aggregate.NewFolder(i.config(), windows.Always(known), slog.New(slog.DiscardHandler))
	if err != nil {
		i.t.Fatal(err)
	}
	return f
}

func newInstallation(t *testing.T, seed uint64) *installation {
	t.Helper()
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	i := &installation{t: t, bus: memory.New(), topics: topics, random: rand.New(rand.NewPCG(seed, 1)), begin: time.Now(), cfg: windows.DefaultConfig()}
	if _, err := i.bus.Apply(t.Context(), topics.Specs(partitions)); err != nil {
		t.Fatal(err)
	}
	if i.in, err = i.bus.Publisher(bus.PublisherOptions{}); err != nil {
		t.Fatal(err)
	}
	return i
}

// run sends frames for a time, while aggregators fold them. Every other aggregator is
// killed, and then frames of its partitions are folded again.
func (i *installation) run(lives int) {
	i.t.Helper()
	for life := range lives {
		stage, member, stop := i.start()
		for range 20 {
			i.send()
			time.Sleep(time.Second + time.Duration(i.random.Int64N(int64(2*time.Second))))
		}
		if life == lives-1 {
			time.Sleep(3 * time.Minute) // all windows close
			if open := stage.Counts().OpenWindows; open != 0 {
				i.t.Fatalf("%d windows are open", open)
			}
		} else if life%2 == 0 {
			member.Expel()
		}
		if err := stop(); err != nil {
			i.t.Fatal(err)
		}
	}
}

func (i *installation) start() (*aggregate.Stage, *memory.Member, func() error) {
	i.t.Helper()
	out, err := i.bus.Publisher(bus.RollupOptions())
	if err != nil {
		i.t.Fatal(err)
	}
	stage, err := aggregate.New(i.config(), windows.Always(known), out, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		i.t.Fatal(err)
	}
	m, err := i.bus.Member(bus.MemberOptions{Group: aggregate.DefaultGroup}, stage)
	if err != nil {
		i.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(i.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(stage.Run(ctx, m), m.Close(), out.Close()) }()
	return stage, m.(*memory.Member), func() error { cancel(); return <-ended }
}

// send writes frames, some of them late or twice, and records that are not frames.
func (i *installation) send() {
	i.t.Helper()
	for range i.random.IntN(8) {
		i.sent++
		layer := i.random.IntN(5)
		f := &oona.Frame{
			Run: "a", Layer: oona.LayerID(fmt.Sprintf("enc.%d", layer)), Producer: oona.ProducerID(fmt.Sprintf("rank.%d", layer)), Epoch: 1, Sequence: i.sent,
			ObservedAt: oona.MicrosOf(time.Now().Add(-time.Duration(i.random.Int64N(int64(2 * time.Second))))), Step: i.sent,
			Seeds: []oona.SeedID{1, 2, 3}, States: []oona.State{oona.Training, oona.Grafting, oona.Dormant},
			Metrics: []oona.Column{{Name: "gradient_norm", Values: []float32{i.random.Float32(), float32(i.random.NormFloat64()), float32(math.NaN())}}},
		}
		if i.random.IntN(10) == 0 {
			f.ObservedAt -= 60_000_000
		}
		payload := avro.AppendFrame(nil, f)
		if i.random.IntN(20) == 0 {
			payload = []byte("not a frame")
		}
		for range 1 + i.random.IntN(20)/19 {
			msg := bus.NewMessage(payload, bus.Target{Key: oona.Key(f.Run, f.Layer)})
			msg.Metadata.Set(oona.HeaderPath, "ingest-0")
			if err := i.in.Publish(i.t.Context(), i.topics.SeedMetrics, msg); err != nil {
				i.t.Fatal(err)
			}
		}
	}
}

// fold folds all of a log again, and compares it with the rollup topics of the bus.
func (i *installation) fold(log replay.Log) (all replay.Comparison, emitted int) {
	i.t.Helper()
	a := &replay.Aggregation{Log: log, Topics: i.topics, Folder: i.folder(), Compare: i.bus}
	extents, err := log.Extents(i.t.Context(), i.topics.SeedMetrics)
	if err != nil {
		i.t.Fatal(err)
	}
	for p, held := range extents[i.topics.SeedMetrics] {
		rollups, err := a.Partition(i.t.Context(), bus.Range{Partition: int32(p), From: held.Start, End: held.End}, partitions, held)
		if err != nil {
			i.t.Fatal(err)
		}
		all.Add(rollups.Comparison)
		emitted += rollups.Count(oona.Health) + rollups.Count(oona.Performance)
	}
	return all, emitted
}

func (i *installation) archiver(dir string) *replay.Archiver {
	commits, err := i.bus.Commits(i.t.Context(), aggregate.DefaultGroup, i.topics.SeedMetrics)
	if err != nil {
		i.t.Fatal(err)
	}
	return &replay.Archiver{Log: i.bus, Dir: dir, Codec: "null", FileBytes: 4 << 10, Folder: i.folder(), Commits: commits}
}

// archive archives a part of each partition. from and to are in percent.
func (i *installation) archive(dir string, m *manifest.Manifest, from, to int64) {
	i.t.Helper()
	extents, err := i.bus.Extents(i.t.Context(), i.topics.SeedMetrics)
	if err != nil {
		i.t.Fatal(err)
	}
	var ranges []bus.Range
	for p, held := range extents[i.topics.SeedMetrics] {
		n := held.End - held.Start
		ranges = append(ranges, bus.Range{Partition: int32(p), From: held.Start + n*from/100, End: held.Start + n*to/100})
	}
	if err := i.archiver(dir).Write(i.t.Context(), m, i.topics.SeedMetrics, true, ranges); err != nil {
		i.t.Fatal(err)
	}
}

func openArchive(t *testing.T, dir string) *archive.Directory {
	t.Helper()
	d, err := archive.OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The rollups of a replay equal those on the topics, byte for byte. This holds for the bus, for an
// archive of the whole log, and for archives that begin and end anywhere.
func TestReplayedRollupsAreTheSame(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			i := newInstallation(t, seed)
			i.run(4)
			live, emitted := i.fold(i.bus)
			if !live.Equal() || live.Same == 0 || int(live.Same) != emitted {
				t.Fatalf("from the bus: %+v of %d", live, emitted)
			}
			for _, share := range [][2]int64{{0, 100}, {30, 100}, {0, 60}, {25, 75}} {
				dir := t.TempDir()
				i.archive(dir, new(manifest.Manifest), share[0], share[1])
				c, emitted := i.fold(openArchive(t, dir))
				if !c.Equal() || c.Same == 0 || int(c.Same) != emitted {
					t.Errorf("seed %d, archive of %d%% to %d%%: %+v of %d", seed, share[0], share[1], c, emitted)
				}
			}
			if err := i.in.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// An archive that was written in three runs has the same bytes as one of a single run, except that
// its files end at other offsets.
func TestArchiveIsContinued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstallation(t, 9)
		i.run(3)
		dir := t.TempDir()
		for _, to := range []int64{20, 55, 100} {
			m, err := manifest.Read(dir)
			if err != nil && to != 20 {
				t.Fatal(err)
			} else if err != nil {
				m = new(manifest.Manifest)
			}
			i.archive(dir, m, 0, to)
		}
		c, emitted := i.fold(openArchive(t, dir))
		if !c.Equal() || c.Same == 0 || int(c.Same) != emitted {
			t.Errorf("%+v of %d", c, emitted)
		}

		all := openArchive(t, dir).Manifest.Topic(i.topics.SeedMetrics).Partitions
		full := slices.IndexFunc(all, func(p manifest.Partition) bool { return len(p.Files) > 3 })
		if full < 0 {
			t.Fatalf("too few files: %+v", all)
		}
		files := all[full].Files
		if err := os.Remove(filepath.Join(dir, files[1].Name)); err != nil {
			t.Fatal(err)
		}
		a := &replay.Aggregation{Log: openArchive(t, dir), Topics: i.topics, Folder: i.folder()}
		held := bus.Extent{Start: 0, End: math.MaxInt64}
		if _, err := a.Partition(t.Context(), bus.Range{Partition: int32(full), End: held.End}, partitions, held); !errors.Is(err, archive.ErrMissing) {
			t.Errorf("a file in the middle is missing: %v", err)
		}
	})
}

func TestManifestIsJSON(t *testing.T) {
	dir := t.TempDir()
	m := manifest.Manifest{Form: "archive", Topics: []manifest.Topic{{Name: "t", Partitions: make([]manifest.Partition, 2)}}}
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, manifest.Name))
	if err != nil || !json.Valid(text) {
		t.Fatalf("%s, %v", text, err)
	}
}
