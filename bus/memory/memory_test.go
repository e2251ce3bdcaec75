package memory_test

import (
	"errors"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/bustest"
	"github.com/morphogenetic/oona/bus/memory"
)

var (
	_ bus.Publisher = (*memory.Publisher)(nil)
	_ bus.Member    = (*memory.Member)(nil)
	_ bus.Reader    = (*memory.Reader)(nil)
)

func TestConformance(t *testing.T) { bustest.RunInBubbles(t, harness) }

func TestWatermill(t *testing.T) { bustest.RunWatermill(t, harness) }

func harness(*testing.T) bustest.Harness {
	b := memory.New(memory.Options{})
	return bustest.Harness{
		CreateTopic: func(t *testing.T, spec oona.TopicSpec) { must(t, b.CreateTopics(spec)) },
		Publisher: func(_ *testing.T, opts bustest.PublisherOptions) bus.Publisher {
			return b.NewPublisher(memory.PublisherOptions{MaxMessageBytes: opts.MaxMessageBytes})
		},
		Member: func(_ *testing.T, opts bustest.MemberOptions, owner bus.Owner) bus.Member {
			return b.NewMember(memory.MemberOptions(opts), owner)
		},
		Reader: func(_ *testing.T, from time.Time) bus.Reader {
			return b.NewReader(memory.ReaderOptions{From: from})
		},
		Ends: func(t *testing.T, topic string) []int64 {
			ends, err := b.Ends(topic)
			must(t, err)
			return ends
		},
		Failed: func(err error) (indexes []int) {
			var failed *memory.PublishError
			if errors.As(err, &failed) {
				for _, f := range failed.Failed {
					indexes = append(indexes, f.Index)
				}
			}
			return indexes
		},
		Faults: faults(b),
	}
}

func faults(b *memory.Bus) bustest.Faults {
	return bustest.Faults{
		Trim: func(t *testing.T, topic string, partition int32, start int64) {
			must(t, b.Trim(topic, partition, start))
		},
		Refuse: func(_ *testing.T, topic string, partition int32) {
			refused := false
			b.Refuse(func(of string, at int32) error {
				if refused || of != topic || at != partition {
					return nil
				}
				refused = true
				return errors.New("refused by the test")
			})
		},
		Hold: func(t *testing.T, topic string, partition int32) (func() int, func()) {
			must(t, b.Freeze(topic, partition))
			return func() int { return b.Waiting(topic, partition) }, func() { must(t, b.Thaw(topic, partition)) }
		},
		Expel: func(_ *testing.T, m bus.Member) func() {
			expelled := m.(*memory.Member)
			expelled.Expel()
			return expelled.Notice
		},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
