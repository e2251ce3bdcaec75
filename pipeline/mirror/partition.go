package mirror

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// waitingBytes limits the records of a partition that wait. As many may be on their way
// besides, and one record may be larger.
const waitingBytes = 4 << 20

// partition is the bus.Consumer of an assigned partition. take and copy run concurrently.
type partition struct {
	stage      *Stage
	pair       *Pair
	assignment bus.Assignment
	ctx        context.Context // ends with the assignment
	end        context.CancelFunc
	taken      chan struct{} // signals that a record waits
	room       chan struct{} // signals that there is room for more

	mu        sync.Mutex
	waiting   []*message.Message // copies
	bytes     int
	next      int64 // offset after the last record that was taken
	settled   int64 // offset after the last record that is done with
	committed int64
	moved     bool // the log does not have the offset of the commit, until that is replaced
}

func newPartition(s *Stage, pair *Pair, a bus.Assignment, from int64, moved bool) *partition {
	p := &partition{
		stage: s, pair: pair, assignment: a, next: from, settled: from, committed: a.Committed.Offset, moved: moved,
		taken: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
	p.ctx, p.end = context.WithCancel(context.Background())
	return p
}

// take makes the copy of a record, when there is room for it. It gives up when the context
// of the message ends.
func (p *partition) take(msg *message.Message, at bus.Position) {
	for !p.hasRoom() {
		select {
		case <-p.room:
		case <-msg.Context().Done():
			return
		case <-p.ctx.Done():
			return
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if at.Offset < p.next {
		return // it was delivered before
	}
	p.next = at.Offset + 1
	copied, err := reframe(p.pair, msg, at)
	if err != nil {
		p.stage.left.Add(1)
		p.stage.logger.Error("a record is left out: it has no value of a schema that the subject has", "topic", at.Topic, "partition", at.Partition, "offset", at.Offset, "err", err)
	} else {
		p.waiting = append(p.waiting, copied)
		p.bytes += len(copied.Payload)
	}
	signal(p.taken)
}

// signal wakes the goroutine that waits on the channel, now or when it waits next.
func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

func (p *partition) hasRoom() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes < waitingBytes
}

var errVersion = errors.New("the registry's subject does not have this version; run: oona registry register")

// reframe returns the copy of a record.
func reframe(pair *Pair, msg *message.Message, at bus.Position) (*message.Message, error) {
	fingerprint, body, err := avro.Cut(msg.Payload)
	if err != nil {
		return nil, err
	}
	id, ok := pair.IDs[fingerprint]
	if !ok {
		return nil, fmt.Errorf("schema %016x: %w", fingerprint, errVersion)
	}
	copied := bus.NewMessage(append(avro.AppendSchemaID(make([]byte, 0, len(msg.Payload)), id), body...),
		bus.Target{Key: at.Key, Partition: at.Partition, Directed: true, Time: at.Appended})
	for name, value := range msg.Metadata {
		copied.Metadata.Set(name, value)
	}
	copied.Metadata.Set(oona.HeaderMirroredFrom, fmt.Sprintf("%s/%d/%d", at.Topic, at.Partition, at.Offset))
	return copied, nil
}

// parsePlace returns the parts of a value of oona.HeaderMirroredFrom.
func parsePlace(text string) (topic string, partition int32, offset int64, ok bool) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return "", 0, 0, false
	}
	number, err := strconv.ParseInt(parts[1], 10, 32)
	offset, wrong := strconv.ParseInt(parts[2], 10, 64)
	return parts[0], int32(number), offset, err == nil && wrong == nil
}

// copy publishes the copies that wait, until the assignment ends.
func (p *partition) copy() {
	for {
		select {
		case <-p.taken:
		case <-p.ctx.Done():
			return
		}
		p.mu.Lock()
		copies, settled := p.waiting, p.next
		p.waiting, p.bytes = nil, 0
		p.mu.Unlock()
		signal(p.room)
		if !p.publish(copies) {
			return
		}
		p.mu.Lock()
		p.settled = settled
		p.mu.Unlock()
	}
}

// The pause between two attempts. It doubles up to longestPause.
const (
	shortestPause = 100 * time.Millisecond
	longestPause  = 5 * time.Second
)

// publish returns true when the bus has the copies, and false if the assignment ends
// before.
func (p *partition) publish(copies []*message.Message) bool {
	for pause := shortestPause; len(copies) > 0; pause = min(2*pause, longestPause) {
		err := p.stage.publisher.Publish(p.ctx, p.pair.To, copies...)
		if err == nil {
			p.stage.copied.Add(int64(len(copies)))
			return true
		}
		if errors.Is(err, bus.ErrTooLarge) {
			if copies, err = p.singly(copies); err == nil {
				return true
			}
		}
		if p.ctx.Err() != nil {
			return false
		}
		p.stage.logger.Warn("copies wait, as the bus does not take them", "topic", p.pair.To, "partition", p.assignment.Partition, "records", len(copies), "err", err)
		bus.Pause(p.ctx, pause)
	}
	return true
}

// singly publishes the copies one by one, and leaves out those that their topic never
// takes. It returns the ones that are left after an error.
func (p *partition) singly(copies []*message.Message) ([]*message.Message, error) {
	for ; len(copies) > 0; copies = copies[1:] {
		err := p.stage.publisher.Publish(p.ctx, p.pair.To, copies[0])
		switch {
		case errors.Is(err, bus.ErrTooLarge):
			p.stage.left.Add(1)
			p.stage.logger.Error("a copy is left out, as its topic does not take it; raise its max.message.bytes",
				"topic", p.pair.To, "partition", p.assignment.Partition, "bytes", len(copies[0].Payload), "from", copies[0].Metadata.Get(oona.HeaderMirroredFrom), "err", err)
		case err != nil:
			return copies, err
		default:
			p.stage.copied.Add(1)
		}
	}
	return nil, nil
}

// Commit returns the offset after the last record that is done with.
func (p *partition) Commit() (bus.Commit, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bus.Commit{Offset: p.settled}, p.settled > p.committed || p.moved
}

// Committed records the result of a commit.
func (p *partition) Committed(c bus.Commit, err error) {
	if err != nil {
		p.stage.logger.Warn("a commit of the mirror failed; it is tried again", "topic", p.assignment.Topic, "partition", p.assignment.Partition, "err", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committed, p.moved = c.Offset, false
}

// End does nothing: how far the group is behind is for the bus's own tools.
func (p *partition) End(int64) {}

// Revoke ends the assignment. The next owner copies what has no copy yet.
func (p *partition) Revoke() {
	s := p.stage
	s.mu.Lock()
	defer s.mu.Unlock()
	p.end()
	delete(s.partitions, p)
	s.logger.Info("partition released", "topic", p.assignment.Topic, "partition", p.assignment.Partition)
}
