package replay_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/windows"
)

// newLostInstallation returns an installation whose log has lost its beginning. Its delays are short, so
// windows can soon be computed again.
func newLostInstallation(t *testing.T, seed uint64) *installation {
	t.Helper()
	i := newInstallation(t, seed)
	i.cfg.MaxDelay, i.cfg.MaxSkew, i.cfg.IdleHorizon = 20*time.Second, 5*time.Second, 10*time.Second
	i.run(5)
	for p, held := range i.extents() {
		if err := i.bus.Trim(i.topics.SeedMetrics, int32(p), held.End/5); err != nil {
			t.Fatal(err)
		}
	}
	return i
}

func (i *installation) extents() []bus.Extent {
	i.t.Helper()
	extents, err := i.bus.Extents(i.t.Context(), i.topics.SeedMetrics)
	if err != nil {
		i.t.Fatal(err)
	}
	return extents[i.topics.SeedMetrics]
}

func (i *installation) beginnings(context.Context, int32) (replay.Beginning, error) {
	return replay.Beginning{Windows: windows.Configuration{Config: i.cfg}}, nil
}

// foldLost folds a log whose past is not known, from an offset of each partition on.
func (i *installation) foldLost(log replay.Log, from func(partition int32, held bus.Extent) int64, beginnings replay.Beginnings) (all replay.Comparison, since []*replay.Since) {
	i.t.Helper()
	a := &replay.Aggregation{Log: log, Topics: i.topics, Folder: i.folder(), Compare: i.bus, Beginnings: beginnings}
	extents, err := log.Extents(i.t.Context(), i.topics.SeedMetrics)
	if err != nil {
		i.t.Fatal(err)
	}
	for p, held := range extents[i.topics.SeedMetrics] {
		if held.End == 0 { // no layer belongs to the partition
			continue
		}
		rollups, err := a.Partition(i.t.Context(), bus.Range{Partition: int32(p), From: from(int32(p), held), End: held.End}, partitions, held)
		if err != nil {
			i.t.Fatal(err)
		}
		if rollups.Since == nil {
			i.t.Fatalf("partition %d is answered as if nothing were lost", p)
		}
		all.Add(rollups.Comparison)
		since = append(since, rollups.Since)
	}
	return all, since
}

func start(_ int32, held bus.Extent) int64 { return held.Start }

// If a log has lost its beginning, the windows are the same from some window on. The replay says which
// one it is. This holds for the bus, and for an archive without snapshots.
func TestLogWithoutItsBeginning(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			i := newLostInstallation(t, seed)
			defer i.close()
			a := &replay.Aggregation{Log: i.bus, Topics: i.topics, Folder: i.folder()}
			for p, held := range i.extents() {
				if _, err := a.Partition(t.Context(), bus.Range{Partition: int32(p), From: held.Start, End: held.End}, partitions, held); held.End > 0 && !errors.Is(err, replay.ErrPastUnknown) {
					t.Errorf("without Beginnings: %v", err)
				}
			}
			dir := t.TempDir()
			archiver := i.archiver(dir)
			archiver.Folder, archiver.Beginnings = nil, i.beginnings
			if err := archiver.Write(t.Context(), new(manifest.Manifest), i.topics.SeedMetrics, true, ranges(i.extents())); err != nil {
				t.Fatal(err)
			}
			kept := openArchive(t, dir)
			for _, c := range []struct {
				log        replay.Log
				beginnings replay.Beginnings
			}{{i.bus, i.beginnings}, {kept, replay.BeginningsIn(kept, i.topics.SeedMetrics, i.cfg)}} {
				i.answersFromSomeWindowOn(c.log, c.beginnings)
			}
		})
	}
}

func (i *installation) close() {
	if err := i.in.Close(); err != nil {
		i.t.Fatal(err)
	}
}

func ranges(extents []bus.Extent) (all []bus.Range) {
	for p, held := range extents {
		all = append(all, bus.Range{Partition: int32(p), From: held.Start, End: held.End})
	}
	return all
}

func (i *installation) answersFromSomeWindowOn(log replay.Log, beginnings replay.Beginnings) {
	i.t.Helper()
	c, since := i.foldLost(log, start, beginnings)
	if !c.Equal() || c.Same == 0 || c.Unanswered == 0 {
		i.t.Errorf("from the beginning: %+v", c)
	}
	for _, s := range since {
		if !s.Known || s.Covers() {
			i.t.Errorf("from the beginning: %v covers all", s)
		}
	}
	window := make(map[int32]oona.Micros)
	for _, s := range since {
		window[s.Partition] = s.Window
	}
	later, sinceLater := i.foldLost(log, func(p int32, held bus.Extent) int64 {
		offset, err := replay.OffsetAt(i.t.Context(), log, i.topics.SeedMetrics, p, held, window[p])
		if err != nil {
			i.t.Fatal(err)
		}
		return offset
	}, beginnings)
	if !later.Equal() || later.Same == 0 {
		i.t.Errorf("from the window that is said: %+v", later)
	}
	for _, s := range sinceLater {
		if !s.Covers() || s.Window != window[s.Partition] {
			i.t.Errorf("from the window that is said: %v, and before %v", s, window)
		}
	}
	c, since = i.foldLost(log, func(_ int32, held bus.Extent) int64 { return held.End }, beginnings)
	if c != (replay.Comparison{}) || since[0].Asked != 0 {
		i.t.Errorf("nothing was asked for: %+v, %v", c, since[0])
	}
}

// If the rest of the log is too short, no window can be computed, and the result says so.
func TestLogThatIsTooShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstallation(t, 1) // here, MaxDelay is a day
		defer i.close()
		i.run(2)
		for p, held := range i.extents() {
			if held.End == 0 {
				continue
			}
			if err := i.bus.Trim(i.topics.SeedMetrics, int32(p), 3); err != nil {
				t.Fatal(err)
			}
		}
		c, since := i.foldLost(i.bus, start, i.beginnings)
		if !c.Equal() || c.Same != 0 || c.Unanswered == 0 || since[0].Known || since[0].Covers() {
			t.Errorf("%+v, %v", c, since[0])
		}
	})
}

// If the known configuration begins within the log, another configuration may hold for earlier windows.
// So these windows are not computed.
func TestWindowsBeforeTheKnownConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newLostInstallation(t, 3)
		defer i.close()
		_, since := i.foldLost(i.bus, start, i.beginnings)
		from := since[0].Window + 30_000_000
		c, since := i.foldLost(i.bus, start, func(context.Context, int32) (replay.Beginning, error) {
			return replay.Beginning{Windows: windows.Configuration{Config: i.cfg, From: from}, Incarnation: oona.Incarnation(1_790_000_000_000_000)}, nil
		})
		if !c.Equal() || c.Same == 0 || since[0].Window != from {
			t.Errorf("%+v, %v, want %d", c, since[0], from)
		}
	})
}
