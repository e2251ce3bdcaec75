package replay_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/records"
)

// trimming is a log that retention shortens while it is read: when half of the range was read, it
// deletes all records except the last ones.
type trimming struct {
	i       *installation
	trimmed bool
}

func (l *trimming) Extents(ctx context.Context, topics ...string) (map[string][]bus.Extent, error) {
	return l.i.bus.Extents(ctx, topics...)
}

func (l *trimming) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	half := r.From + (r.End-r.From)/2
	if err := l.i.bus.Read(ctx, topic, bus.Range{Partition: r.Partition, From: r.From, End: half}, take); err != nil {
		return err
	}
	if r.End-r.From > 10 && !l.trimmed {
		l.trimmed = true
		if err := l.i.bus.Trim(topic, r.Partition, r.End-2); err != nil {
			return err
		}
		half = r.End - 2
	}
	return l.i.bus.Read(ctx, topic, bus.Range{Partition: r.Partition, From: half, End: r.End}, take)
}

// kept is an Output that counts calls.
type kept struct{ closed, aborted int }

func (k *kept) Open(_ context.Context, _ string, r bus.Range) (replay.Writer, int64, error) {
	return k, r.From, nil
}
func (k *kept) Write(*records.Record) error { return nil }
func (k *kept) Close(int64) error           { k.closed++; return nil }
func (k *kept) Abort() error                { k.aborted++; return nil }

// If retention deletes records during a replay, every kind of replay returns an error. The records are
// not left out silently.
func TestRecordsAreDeletedDuringAReplay(t *testing.T) {
	for name, replayed := range map[string]func(t *testing.T, i *installation, log replay.Log, r bus.Range) error{
		"archive": func(t *testing.T, i *installation, log replay.Log, r bus.Range) error {
			a := &replay.Archiver{Log: log, Dir: t.TempDir(), Codec: "null", FileBytes: 1 << 20}
			return a.Write(t.Context(), &manifest.Manifest{Form: "archive", Codec: "null"}, i.topics.SeedMetrics, true, []bus.Range{r})
		},
		"extraction": func(t *testing.T, i *installation, log replay.Log, r bus.Range) error {
			output := new(kept)
			err := (&replay.Extraction{Log: log, Output: output}).Extract(t.Context(), i.topics.SeedMetrics, r)
			if output.closed != 0 || output.aborted != 1 {
				t.Errorf("the writer was closed %d times, aborted %d times", output.closed, output.aborted)
			}
			return err
		},
		"aggregation": func(t *testing.T, i *installation, log replay.Log, r bus.Range) error {
			a := &replay.Aggregation{Log: log, Topics: i.topics, Folder: i.folder()}
			_, err := a.Partition(t.Context(), r, partitions, i.extents()[r.Partition])
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newInstallation(t, 5)
				defer i.close()
				i.run(2)
				var r bus.Range
				for p, held := range i.extents() {
					if held.End > r.End {
						r = bus.Range{Partition: int32(p), End: held.End}
					}
				}
				log := &trimming{i: i}
				if err := replayed(t, i, log, r); !errors.Is(err, replay.ErrDeleted) || !log.trimmed {
					t.Errorf("%v, want ErrDeleted", err)
				}
			})
		})
	}
}
