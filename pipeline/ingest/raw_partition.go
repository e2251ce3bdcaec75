package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/tracing"
	"github.com/morphogenetic/oona/pipeline"
)

// rawBatchBytes limits the memory of the decoded records of a partition that wait. The records
// that are being forwarded may use the same amount in addition. A single record may use more.
const rawBatchBytes = 4 << 20

// rawPartition is the bus.Consumer of an assigned partition of the raw topic. The bus
// hands out one of its messages at a time, so calls of take do not overlap. forward runs
// concurrently with take.
type rawPartition struct {
	raw        *Raw
	assignment bus.Assignment
	label      string // of its metrics
	path       string // value of oona.HeaderPath of all its frames
	decoder    *intake.Decoder
	dead       pipeline.Outbox // used by forward only
	ctx        context.Context // ends with the assignment
	end        context.CancelFunc
	taken      chan struct{} // signals that a record waits
	room       chan struct{} // signals that memory was returned

	mu        sync.Mutex
	waiting   []*rawRecord
	bytes     int64 // memory of the records in waiting
	flying    int64 // memory of the records that are being forwarded
	ended     bool  // forward has returned
	from      int64 // first offset to read
	next      int64 // offset after the last record that was taken
	settled   int64 // offset after the last record that was forwarded or is a dead letter
	committed int64
	lost      int64 // records that retention deleted before from, until they are counted
	moved     bool  // the log does not have the offset of the commit, until that is replaced
}

// rawRecord is a record that was taken. It has frames or a refusal.
type rawRecord struct {
	msg     *message.Message
	at      bus.Position
	frames  *intake.Batch
	refused *intake.Refusal
	held    *lease // until it is settled
	large   int64  // how much of held is memory for large records
	notes   rawNotes
	judged  time.Time
}

func newRawPartition(r *Raw, a bus.Assignment, from int64) *rawPartition {
	p := &rawPartition{
		raw:        r,
		assignment: a,
		label:      strconv.Itoa(int(a.Partition)),
		path:       fmt.Sprintf("%s/%d", a.Topic, a.Partition),
		decoder:    intake.NewDecoder(r.sink.intake.Frame),
		taken:      make(chan struct{}, 1),
		room:       make(chan struct{}, 1),
		from:       from,
		next:       from,
		settled:    from,
		committed:  a.Committed.Offset,
	}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.dead = pipeline.Outbox{Publisher: r.sink.publisher, Dropped: p.drop}
	return p
}

// take decodes a record when there is memory for it, and adds it to those that wait. It gives up
// when the context of the message ends, which is when the session with the bus ends. The next
// owner of the partition then reads the record. The assignment itself ends only after take has
// returned.
func (p *rawPartition) take(msg *message.Message, at bus.Position) {
	if at.Offset < p.next {
		return // it was delivered before
	}
	ctx, cancel := context.WithCancel(msg.Context())
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	if record := p.admit(ctx, msg); record != nil {
		record.at = at
		record.at.Key = bytes.Clone(at.Key)
		p.put(record)
		p.next = at.Offset + 1
	}
}

// admit decodes a record when there is memory for it and its schema is known. It returns
// nil if ctx ends.
func (p *rawPartition) admit(ctx context.Context, msg *message.Message) *rawRecord {
	for pause := shortestRawPause; ; pause = min(2*pause, longestRawPause) {
		record := p.fit(ctx, msg)
		if record == nil || record.refused == nil || record.refused.Retry == 0 {
			return record
		}
		p.raw.free(record)
		p.waits("schemas", errors.New(record.refused.Detail))
		if bus.Pause(ctx, pause); ctx.Err() != nil {
			return nil
		}
	}
}

// fit decodes a record when there is memory for it. It returns nil if ctx ends. A
// record that fits into the memory reserved for the partition does not wait for other
// partitions. A larger one waits for memory for large records.
func (p *rawPartition) fit(ctx context.Context, msg *message.Message) *rawRecord {
	for !p.hasRoom() {
		select {
		case <-p.room:
		case <-ctx.Done():
			return nil
		}
	}
	memory := p.raw.memory
	if record := p.decode(ctx, msg, &lease{share: memory, limit: max(p.left(), 1)}); record != nil {
		return record
	}
	most := 4*int64(len(msg.Payload)) + secondBuffer
	if intake.IsContainer(msg.Payload) {
		most += 2 * p.raw.sink.cfg.MaxDecompressedBytes // its frames, and their tensors
	}
	large := min(most, p.raw.largest)
	if p.raw.large.Acquire(ctx, large) != nil {
		return nil
	}
	most = min(most, memory.least-p.raw.beside)
	if !memory.wait(ctx, most) {
		p.raw.large.Release(large)
		return nil
	}
	record := p.decode(ctx, msg, &lease{share: memory, taken: most, soft: true})
	if record.held.used > p.left() { // otherwise it fits into the reserved part now that it is decoded
		record.large = min(large, record.held.used)
	}
	p.raw.large.Release(large - record.large)
	return record
}

// decode decodes a record in memory of held. It returns nil if that is not enough.
func (p *rawPartition) decode(ctx context.Context, msg *message.Message, held *lease) *rawRecord {
	own := len(msg.Payload) + intake.MessageBytes
	record := &rawRecord{held: held}
	fits := held.Grow(own)
	if fits {
		// The record is copied, because the bus may have fetched it together with many
		// others, whose memory would not be freed before that of this record.
		msg = &message.Message{UUID: msg.UUID, Payload: bytes.Clone(msg.Payload), Metadata: msg.Metadata}
		record.msg = msg
		record.frames = p.raw.sink.intake.NewBatch()
		record.frames.Path, record.frames.Memory = p.path, held
		record.frames.Permit = record.notes.observe(p.raw.sink.cfg.Tracer)
		record.frames.Judge, record.judged = p.raw.sink.judge, time.Now()
		record.frames.Schema = p.raw.sink.schemas(ctx)
		record.refused = decodeRaw(p.decoder, msg, record.frames, p.raw.sink.cfg.MaxBodyBytes)
		if p.raw.sink.cfg.Tracer != nil {
			record.notes.client, _ = tracing.Parse(record.frames.Trace)
		}
		fits = record.refused == nil || record.refused.Reason != intake.ReasonOverloaded
	}
	if int64(p.decoder.Size()) > p.raw.kept.Load() {
		p.decoder = intake.NewDecoder(p.raw.sink.intake.Frame)
	}
	if !fits {
		held.end()
		return nil
	}
	if record.refused != nil {
		record.frames = nil
		held.used = int64(own)
	}
	held.trim()
	return record
}

// hasRoom reports whether the partition may take another record. It leaves memory for
// other partitions.
func (p *rawPartition) hasRoom() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes < rawBatchBytes && (p.bytes+p.flying == 0 || p.bytes+p.flying < p.raw.each.Load())
}

// left returns how much of the reserved memory the partition does not use.
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

// signal wakes the goroutine that waits on the channel, now or when it waits next.
func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// forward settles the records that wait, as one batch after the other, until the
// assignment ends.
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

// forget returns the memory of records that wait and will not be forwarded.
func (p *rawPartition) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for _, r := range p.waiting {
		p.raw.free(r)
	}
	p.waiting, p.bytes = nil, 0
}

// settle forwards the records or makes dead letters of them. It returns true when all are
// settled, and false if the assignment ends first. No later record is forwarded in the meantime.
func (p *rawPartition) settle(records []*rawRecord) bool {
	for _, r := range records {
		if r.refused == nil && len(r.frames.Tensors) > 0 && !p.until("tensors", func() error { return p.keepTensors(r) }) {
			return false
		}
	}
	trace := p.raw.sink.traceBatch(records)
	var failed error // of the last attempt
	published := p.until("frames", func() error {
		failed = p.publish(records)
		return failed
	})
	trace.published(p.raw.topics.SeedMetrics, failed)
	if !published {
		return false
	}
	for _, r := range records {
		if r.refused != nil {
			p.dead.Add(p.raw.topics.SeedRawDead, pipeline.SideMessage(r.msg, r.at, pipeline.Rejection{Stage: "ingest", Reason: string(r.refused.Reason), Detail: r.refused.Detail}))
		}
	}
	return p.until("dead", func() error { return p.dead.Flush(p.ctx) })
}

// The pause between two attempts. It doubles up to longestRawPause.
const (
	shortestRawPause = 100 * time.Millisecond
	longestRawPause  = 5 * time.Second
)

// until calls try until it succeeds. It returns false if the assignment ends first.
func (p *rawPartition) until(what string, try func() error) bool {
	for pause := shortestRawPause; ; pause = min(2*pause, longestRawPause) {
		err := try()
		if err == nil || p.ctx.Err() != nil {
			return err == nil
		}
		p.waits(what, err)
		bus.Pause(p.ctx, pause)
	}
}

// waits counts and logs an attempt that is repeated.
func (p *rawPartition) waits(what string, err error) {
	p.raw.metrics.retries.WithLabelValues(what).Inc()
	p.raw.sink.warn("records of the raw topic cannot be processed yet; trying again", "topic", p.assignment.Topic, "partition", p.assignment.Partition, "for", what, "err", err)
}

// keepTensors stores the tensors of a record. If the store will never accept them, the
// record is refused. The error means that the store may accept them later.
func (p *rawPartition) keepTensors(r *rawRecord) error {
	refused := p.raw.sink.storeTensors(p.ctx, r.frames)
	if p.ctx.Err() != nil {
		return p.ctx.Err()
	}
	if refused != nil && refused.Retry > 0 {
		return errors.New(refused.Detail)
	}
	r.refused = refused
	return nil
}

// publish publishes the frames of all records as one batch. Records that the bus will
// never accept are refused.
func (p *rawPartition) publish(records []*rawRecord) error {
	var all []*message.Message
	for _, r := range records {
		all = append(all, r.messages()...)
	}
	err := p.raw.sink.publisher.Publish(p.ctx, p.raw.topics.SeedMetrics, all...)
	if !errors.Is(err, bus.ErrTooLarge) {
		return err
	}
	for _, r := range records {
		err := p.raw.sink.publishTo(p.ctx, p.raw.sink.cfg.Topic, r.messages())
		if tooLarge, ok := errors.AsType[*tooLargeError](err); ok {
			r.refused = intake.Refuse(intake.ReasonTooLarge, "%v", tooLarge)
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
	return r.frames.Messages
}

// drop counts a dead letter that its topic will never accept.
func (p *rawPartition) drop(topic string, msg *message.Message, err error) {
	p.raw.metrics.lost.WithLabelValues(lostTooLarge).Inc()
	p.raw.logger.Error("a dead letter is lost, because it is too large for its topic; raise max.message.bytes of the topic",
		"topic", topic, "bytes", len(msg.Payload), "partition", p.assignment.Partition, "offset", msg.Metadata.Get(oona.HeaderErrorOffset), "err", err)
}

// progress returns the offset to commit, and whether a commit is due.
func (p *rawPartition) progress() (settled int64, due bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.settled, p.settled > max(p.committed, p.from) || p.moved
}

// count counts a record that is settled.
func (r *Raw) count(record *rawRecord) {
	if why := record.refused; why != nil {
		r.metrics.records.WithLabelValues(rawDead).Inc()
		r.metrics.dead.WithLabelValues(string(why.Reason)).Inc()
		r.sink.warn("a record of the raw topic was not accepted, and is a dead letter now (oona dead-letters list)", "reason", why.Reason, "detail", why.Detail, "partition", record.at.Partition, "offset", record.at.Offset)
		return
	}
	r.metrics.records.WithLabelValues(rawForwarded).Inc()
	lapse(record.frames, record.judged, false)
	r.sink.accepted(record.frames)
}
