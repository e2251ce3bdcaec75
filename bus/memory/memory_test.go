package memory_test

import (
	"errors"
	"testing"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/bustest"
	"github.com/morphogenetic/oona/bus/memory"
)

var _ bus.Bus = (*memory.Bus)(nil)

func TestConformance(t *testing.T) { bustest.RunInBubbles(t, harness) }

func TestWatermill(t *testing.T) { bustest.RunWatermill(t, harness) }

func harness(*testing.T) bustest.Harness {
	b := memory.New()
	return bustest.Harness{Bus: b, Faults: faults(b)}
}

func faults(b *memory.Bus) bustest.Faults {
	return bustest.Faults{
		DeleteTopic:   func(t *testing.T, topic string) { must(t, b.DeleteTopic(topic)) },
		AddPartitions: func(t *testing.T, topic string, n int32) { must(t, b.AddPartitions(topic, n)) },
		Retain:        func(t *testing.T, topic string, r bus.Retention) { must(t, b.Retain(topic, r)) },
		Trim: func(t *testing.T, topic string, partition int32, start int64) {
			must(t, b.Trim(topic, partition, start))
		},
		LoseTail: func(t *testing.T, topic string, partition int32, end int64) {
			must(t, b.LoseTail(topic, partition, end))
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
		Silence: func(t *testing.T, topic string, partition int32) func() {
			must(t, b.Freeze(topic, partition))
			return func() { must(t, b.Thaw(topic, partition)) }
		},
		Expel: func(_ *testing.T, _ string, m bus.Member) func() {
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
