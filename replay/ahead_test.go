package replay_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
)

// numbered is a log whose records are numbered from 0. Read returns an error, or ends with its context.
type numbered struct {
	records int
	err     error
	running bool // whether Read has not returned yet
}

func (*numbered) Extents(context.Context, ...string) (map[string][]bus.Extent, error) {
	return map[string][]bus.Extent{"t": {{End: 1 << 20}}}, nil
}

func (n *numbered) Read(ctx context.Context, _ string, r bus.Range, take func(*message.Message) error) error {
	n.running = true
	defer func() { n.running = false }()
	for i := int(r.From); i < n.records; i++ {
		msg := message.NewMessage("", []byte{byte(i)})
		msg.SetContext(bus.WithPosition(ctx, bus.Position{Topic: "t", Offset: int64(i)}))
		if err := errors.Join(ctx.Err(), take(msg)); err != nil {
			return err
		}
	}
	return n.err
}

// ReadAhead passes on all records in order, returns the first error, and leaves no goroutine behind.
func TestReadAhead(t *testing.T) {
	errLog, errTake := errors.New("of the log"), errors.New("of take")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx     context.Context
		log     numbered
		failsAt int // of take; 0: never
		taken   int // -1: any number
		want    error
	}{
		"all":                      {t.Context(), numbered{records: 1000}, 0, 1000, nil},
		"none":                     {t.Context(), numbered{}, 0, 0, nil},
		"take fails":               {t.Context(), numbered{records: 100_000}, 700, 700, errTake},
		"take fails at the end":    {t.Context(), numbered{records: 700, err: errLog}, 700, 700, errTake},
		"the log fails":            {t.Context(), numbered{records: 128, err: errLog}, 0, 128, errLog},
		"the context ended before": {ended, numbered{records: 1000}, 0, -1, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			var taken []byte
			err := replay.ReadAhead(c.ctx, &c.log, "t", bus.Range{End: 1 << 20}, func(msg *message.Message) error {
				taken = append(taken, msg.Payload...)
				if len(taken) == c.failsAt {
					return errTake
				}
				return nil
			})
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("%v, want %v", err, c.want)
			}
			if c.log.running {
				t.Error("the log is still read")
			}
			if c.taken >= 0 && len(taken) != c.taken {
				t.Errorf("%d records were taken, want %d", len(taken), c.taken)
			}
			want := make([]byte, len(taken))
			for i := range want {
				want[i] = byte(i)
			}
			if !slices.Equal(taken, want) {
				t.Error("they are not in order")
			}
		})
	}
}
