package kafka

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// scripted is a consumer whose partition ends after the records of each opening.
type scripted struct {
	sarama.Consumer
	oldest   atomic.Int64
	openings [][]int64 // offsets of the records of each opening
	asked    []int64
}

func (s *scripted) ConsumePartition(_ string, _ int32, offset int64) (sarama.PartitionConsumer, error) {
	s.asked = append(s.asked, offset)
	if offset >= 0 && offset < s.oldest.Load() {
		return nil, sarama.ErrOffsetOutOfRange
	}
	if len(s.openings) == 0 {
		return nil, sarama.ErrOutOfBrokers
	}
	opening := s.openings[0]
	s.openings = s.openings[1:]
	p := &ending{messages: make(chan *sarama.ConsumerMessage, len(opening)), errors: make(chan *sarama.ConsumerError)}
	for _, o := range opening {
		p.messages <- &sarama.ConsumerMessage{Offset: o}
	}
	close(p.messages)
	return p, nil
}

type ending struct {
	sarama.PartitionConsumer
	messages chan *sarama.ConsumerMessage
	errors   chan *sarama.ConsumerError
}

func (e *ending) Messages() <-chan *sarama.ConsumerMessage { return e.messages }
func (e *ending) Errors() <-chan *sarama.ConsumerError     { return e.errors }
func (e *ending) Close() error                             { return nil }

// If the reading of a partition has stopped, it continues with the next record. If retention has
// deleted that record, it continues with the oldest one, and an error is logged.
func TestPartitionThatEndsIsTakenUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		log := newTopicLog([]bus.Range{{From: 5}}, 0, slog.New(slog.NewTextHandler(&logged, nil)))
		s := &scripted{openings: [][]int64{{5, 6}, {7}, {20, 21}}}
		p, err := openPartition(s, log, "t", 0)
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for range 3 {
			got = append(got, (<-p.Messages()).Offset)
		}
		synctest.Wait()
		s.oldest.Store(20)
		for range 2 {
			got = append(got, (<-p.Messages()).Offset)
		}
		if err := p.Close(); err != nil { // afterwards its requests can be examined
			t.Error(err)
		}
		if !slices.Equal(got, []int64{5, 6, 7, 20, 21}) {
			t.Errorf("records %v", got)
		}
		if want := []int64{5, 7, 8, sarama.OffsetOldest}; !slices.Equal(s.asked, want) {
			t.Errorf("opened at %v, want %v", s.asked, want)
		}
		if text := logged.String(); strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, "offset=8") {
			t.Errorf("logged:\n%s", text)
		}
		if _, open := <-p.Messages(); open {
			t.Error("a record after Close")
		}
	})
}
