package top

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/verdict"
)

// Follow returns no error if the user quits while it subscribes.
func TestEndedWhileItSubscribes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	none := func(Snapshot) error { return errors.New("there is nothing to show") }
	for _, tt := range []struct {
		bus  memory.Away
		want error
	}{{memory.Away{}, bus.ErrUnreachable}, {memory.Away{Asked: cancel}, nil}} {
		source := &Source{Rollups: tt.bus, Poller: &Poller{}}
		if err := source.Follow(ctx, none); !errors.Is(err, tt.want) {
			t.Errorf("%v, want %v", err, tt.want)
		}
	}
}

// slow is a reader that delays each message.
type slow struct {
	bus.Reader
	each time.Duration
}

func (s slow) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	messages, err := s.Reader.Subscribe(ctx, topic)
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		for msg := range messages {
			bus.Pause(ctx, s.each)
			select {
			case out <- msg:
			case <-ctx.Done():
			}
		}
	}()
	return out, nil
}

// The first snapshot of a settled source has all rollups that were there at the start, however slow
// the bus is. Follow logs once that it waits.
func TestSettledOnASlowBus(t *testing.T) {
	onBus(t, func(p *polled) {
		p.commit()
		const layers, each = 5, time.Minute
		for layer := range layers {
			for g, topic := range map[oona.Group]string{oona.Health: p.topics.LayerHealth, oona.Performance: p.topics.LayerPerformance} {
				r := &oona.Rollup{Group: g, Run: "r", Layer: oona.LayerID(fmt.Sprint("enc.", layer)), End: 10e6, Trigger: oona.Trigger{Offset: int64(layer)}}
				r.Hash = r.ContentHash()
				p.publish(topic, int32(layer%2), 1, "x", "y", avro.AppendRollup(nil, r))
			}
		}
		reader, err := p.bus.Reader(bus.ReaderOptions{})
		if err != nil {
			p.Fatal(err)
		}
		defer func() { _ = reader.Close() }()
		var log bytes.Buffer
		source := &Source{
			Rollups: slow{reader, each}, Poller: p.Poller, Interval: time.Second, Settled: true,
			Board: watch.BoardOptions{Stay: time.Hour, Rule: func(string) verdict.Rule { return verdict.Rule{Judged: true} }, Logger: slog.New(slog.NewTextHandler(&log, nil))},
		}
		var first Snapshot
		began := time.Now()
		if err := source.Follow(p.Context(), func(s Snapshot) error { first = s; return ErrEnough }); err != nil {
			p.Fatal(err)
		}
		if took := time.Since(began); took < layers*each {
			p.Errorf("the bus was not slow: it took %s", took)
		}
		if len(first.Layers) != layers || first.Reading {
			p.Errorf("the first snapshot is %+v", first)
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			p.Errorf("%d warnings, want 1: %s", n, &log)
		}
	})
}
