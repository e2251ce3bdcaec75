package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline"
)

// rawBatchBytes is how much memory what waits of a partition may use, decoded,
// while what is on its way uses as much. One record may use more.
const rawBatchBytes = 4 << 20

// rawPartition is a partition of the raw topic that this ingest was assigned: its
// bus.Consumer. The bus hands out one message of it at a time, so take is never
// entered twice at the same time; forward runs beside it.
type rawPartition struct {
	raw        *Raw
	assignment bus.Assignment
	path       string // of all its frames: oona.HeaderPath
	decoders   *decoders
	dead       pipeline.Outbox // forward's own
	ctx        context.Context // ends with the assignment
	end        context.CancelFunc
	taken      chan struct{} // there is something in waiting
	room       chan struct{} // less waits, or is on its way

	mu        sync.Mutex
	waiting   []*rawRecord
	bytes     int64 // that they use
	flying    int64 // bytes that those use that are on their way
	ended     bool  // nothing is forwarded any more
	from      int64 // first offset that is read
	next      int64 // offset after the last record that was taken
	settled   int64 // offset after the last one that is forwarded, or a dead letter
	committed int64
	lost      int64 // records that retention deleted before from, until they are counted
}

// rawRecord is a record that was taken: its frames, or why it is refused.
type rawRecord struct {
	msg     *message.Message
	at      bus.Position
	frames  *batch
	refused *refusal
	held    *lease // until it is settled
	large   int64  // of the memory for large records
}

func newRawPartition(r *Raw, a bus.Assignment, from int64) *rawPartition {
	p := &rawPartition{
		raw:        r,
		assignment: a,
		path:       fmt.Sprintf("%s/%d", a.Topic, a.Partition),
		decoders:   newDecoders(r.intake.cfg),
		taken:      make(chan struct{}, 1),
		room:       make(chan struct{}, 1),
		from:       from,
		next:       from,
		settled:    from,
		committed:  a.Committed.Offset,
	}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.dead = pipeline.Outbox{Publisher: r.intake.publisher, Dropped: p.drop}
	return p
}

// take decodes a record and puts it behind those that wait, once there is memory
// for it. It gives up when the bus's session ends, which the message's context
// tells: the partition's next owner reads the record. The assignment itself ends only
// after take has returned.
func (p *rawPartition) take(msg *message.Message, at bus.Position) error {
	if at.Offset < p.next {
		return nil // delivered again
	}
	ctx, cancel := context.WithCancel(msg.Context())
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	record := p.admit(ctx, msg)
	if record == nil {
		return nil
	}
	record.at = at
	p.put(record)
	p.next = at.Offset + 1
	return nil
}

// admit waits until there is memory for a record, and decodes it; nil: ctx has
// ended. A record that fits into the partition's own part of the memory waits for
// no other partition. One that does not waits for the part that is for large ones.
func (p *rawPartition) admit(ctx context.Context, msg *message.Message) *rawRecord {
	for !p.hasRoom() {
		select {
		case <-p.room:
		case <-ctx.Done():
			return nil
		}
	}
	memory := p.raw.memory
	if record := p.decode(msg, &lease{share: memory, limit: max(p.left(), 1)}); record != nil {
		return record
	}
	most := 4*int64(len(msg.Payload)) + secondBuffer
	if isContainer(msg.Payload) {
		most += 2 * p.raw.intake.cfg.MaxDecompressedBytes // what its frames come to, and their tensors
	}
	most = min(most, memory.least)
	if p.raw.large.Acquire(ctx, most) != nil {
		return nil
	}
	if !memory.wait(ctx, p.ctx, most) {
		p.raw.large.Release(most)
		return nil
	}
	record := p.decode(msg, &lease{share: memory, taken: most, soft: true})
	if record.held.used > p.left() { // else it is of the partition's own part, now that it is decoded
		record.large = min(most, record.held.used)
	}
	p.raw.large.Release(most - record.large)
	return record
}

// decode returns nil where the lease has not enough memory.
func (p *rawPartition) decode(msg *message.Message, held *lease) *rawRecord {
	own := len(msg.Payload) + messageBytes
	record := &rawRecord{msg: msg, held: held}
	fits := held.grow(own)
	if fits {
		b := &batch{cfg: &p.raw.intake.cfg, path: p.path, held: held}
		record.frames, record.refused = p.decoders.rawFrames(msg, b)
		held.shrink(b.decoders)
		fits = record.refused == nil || record.refused.reason != reasonOverloaded
	}
	if p.decoders.size() > pooled {
		p.decoders = newDecoders(p.raw.intake.cfg)
	}
	if !fits {
		held.end()
		return nil
	}
	if record.refused != nil {
		held.used = int64(own) // its frames are forgotten
	}
	held.trim()
	return record
}

// hasRoom is false where enough of the partition waits, or is on its way: what
// other partitions need is theirs.
func (p *rawPartition) hasRoom() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes < rawBatchBytes && (p.bytes+p.flying == 0 || p.bytes+p.flying < p.raw.each.Load())
}

// left is what the partition may use besides what waits, or is on its way.
func (p *rawPartition) left() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.raw.each.Load() - p.bytes - p.flying
}

func (p *rawPartition) put(r *rawRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		p.raw.free(r)
		return
	}
	p.waiting = append(p.waiting, r)
	p.bytes += r.held.used
	signal(p.taken)
}

// signal wakes the one that waits, now or when it next does.
func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// forward settles what waits, all of it at a time, until the assignment ends.
func (p *rawPartition) forward() {
	defer p.forget()
	for {
		select {
		case <-p.taken:
		case <-p.ctx.Done():
			return
		}
		p.mu.Lock()
		records := p.waiting
		p.flying, p.waiting, p.bytes = p.bytes, nil, 0
		p.mu.Unlock()
		signal(p.room)
		if len(records) == 0 {
			continue
		}
		settled := p.settle(records)
		for _, r := range records {
			p.raw.free(r)
		}
		if !settled {
			return
		}
		p.mu.Lock()
		p.settled, p.flying = records[len(records)-1].at.Offset+1, 0
		p.mu.Unlock()
		signal(p.room)
		for _, r := range records {
			p.raw.count(r)
		}
	}
}

// forget gives back what waits and will not be forwarded.
func (p *rawPartition) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for _, r := range p.waiting {
		p.raw.free(r)
	}
	p.waiting, p.bytes = nil, 0
}

// settle returns once each record is forwarded or a dead letter, and false where
// the assignment ends before. Until then nothing behind them is forwarded.
func (p *rawPartition) settle(records []*rawRecord) bool {
	for _, r := range records {
		if r.refused == nil && len(r.frames.tensors) > 0 && !p.until("tensors", func() error { return p.keepTensors(r) }) {
			return false
		}
	}
	if !p.until("frames", func() error { return p.publish(records) }) {
		return false
	}
	for _, r := range records {
		if r.refused != nil {
			p.dead.Add(p.raw.topics.SeedRawDead, p.deadLetter(r))
		}
	}
	return p.until("dead", func() error { return p.dead.Flush(p.ctx) })
}

// The pause before something is tried again grows from the one to the other.
const (
	shortestRawPause = 100 * time.Millisecond
	longestRawPause  = 5 * time.Second
)

// until tries again and again, and returns false where the assignment ends before it
// has succeeded.
func (p *rawPartition) until(what string, try func() error) bool {
	for pause := shortestRawPause; p.ctx.Err() == nil; pause = min(2*pause, longestRawPause) {
		err := try()
		if err == nil {
			return true
		}
		if p.ctx.Err() != nil {
			return false
		}
		p.raw.metrics.retries.WithLabelValues(what).Inc()
		p.raw.intake.warn("records of the raw topic wait", "partition", p.assignment.Partition, "for", what, "err", err)
		bus.Pause(p.ctx, pause)
	}
	return false
}

// keepTensors has a record refused whose tensors the store will never take. Its
// error is of one that may take them later.
func (p *rawPartition) keepTensors(r *rawRecord) error {
	refused := p.raw.intake.storeTensors(p.ctx, r.frames)
	if p.ctx.Err() != nil {
		return p.ctx.Err()
	}
	if refused != nil && refused.retry > 0 {
		return errors.New(refused.detail)
	}
	r.refused = refused
	return nil
}

// publish hands the frames of all records to the bus, as one batch. A record
// that the bus will never take is refused.
func (p *rawPartition) publish(records []*rawRecord) error {
	var all []*message.Message
	for _, r := range records {
		all = append(all, r.messages()...)
	}
	err := p.raw.intake.publisher.Publish(p.ctx, p.raw.topics.SeedMetrics, all...)
	if !errors.Is(err, bus.ErrTooLarge) {
		return err
	}
	for _, r := range records {
		err := p.raw.intake.publishFrames(p.ctx, r.messages())
		if tooLarge, ok := errors.AsType[*tooLargeError](err); ok {
			r.refused = tooLarge.refusal()
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (r *rawRecord) messages() []*message.Message {
	if r.refused != nil {
		return nil
	}
	return r.frames.messages
}

// deadLetter is the record, with why it is refused.
func (p *rawPartition) deadLetter(r *rawRecord) *message.Message {
	return pipeline.SideMessage(r.msg, r.at, pipeline.Rejection{Stage: "ingest", Reason: string(r.refused.reason), Detail: r.refused.detail})
}

// drop counts a dead letter that its topic will never take.
func (p *rawPartition) drop(topic string, msg *message.Message, err error) {
	p.raw.metrics.lost.WithLabelValues(lostTooLarge).Inc()
	p.raw.logger.Error("a record is lost: the bus will never take it", "topic", topic, "bytes", len(msg.Payload), "offset", msg.Metadata.Get(oona.HeaderErrorOffset), "err", err)
}

// progress returns the offset that may be committed, and whether it is new.
func (p *rawPartition) progress() (settled int64, due bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.settled, p.settled > max(p.committed, p.from) || p.lost > 0
}

// count notes what became of a record.
func (r *Raw) count(record *rawRecord) {
	if why := record.refused; why != nil {
		r.metrics.records.WithLabelValues(rawDead).Inc()
		r.metrics.dead.WithLabelValues(string(why.reason)).Inc()
		r.intake.warn("a record of the raw topic is a dead letter", "reason", why.reason, "detail", why.detail, "partition", record.at.Partition, "offset", record.at.Offset)
		return
	}
	r.metrics.records.WithLabelValues(rawForwarded).Inc()
	r.intake.counts.accept(record.frames)
}
