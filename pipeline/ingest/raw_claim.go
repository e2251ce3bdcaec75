package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline"
)

// rawBatchBytes is how much memory what waits of a partition may use, decoded,
// while what is on its way uses as much. One record may use more.
const rawBatchBytes = 4 << 20

// rawClaim is a partition of the raw topic that this ingest has claimed. The bus
// hands out one message of a claim at a time, so take is never entered twice at
// once; forward runs beside it.
type rawClaim struct {
	raw      *Raw
	about    oona.Claim
	path     string // of all its frames: oona.HeaderPath
	decoders *decoders
	dead     pipeline.Outbox // forward's own
	ctx      context.Context // ends with the claim
	end      context.CancelFunc
	taken    chan struct{} // there is something in waiting
	room     chan struct{} // less waits, or is on its way

	mu        sync.Mutex
	waiting   []*rawRecord
	bytes     int64 // that they use
	flying    int64 // bytes that those use that are on their way
	ended     bool  // nothing is forwarded any more
	next      int64 // offset after the last record that was taken
	settled   int64 // offset after the last one that is forwarded, or a dead letter
	committed int64
}

// rawRecord is a record that was taken: its frames, or why it is refused.
type rawRecord struct {
	msg     *message.Message
	at      pipeline.Position
	frames  *batch
	refusal *problem
	held    *lease // until it is settled
	large   int64  // of the memory for large records
}

func newRawClaim(r *Raw, about oona.Claim) *rawClaim {
	c := &rawClaim{
		raw:       r,
		about:     about,
		path:      fmt.Sprintf("%s/%d", about.Topic, about.Partition),
		decoders:  newDecoders(r.stage.cfg),
		taken:     make(chan struct{}, 1),
		room:      make(chan struct{}, 1),
		next:      about.Start,
		settled:   about.Start,
		committed: about.Committed.Offset,
	}
	c.ctx, c.end = context.WithCancel(context.Background())
	c.dead = pipeline.Outbox{Publisher: untilEnd{c}, Dropped: c.drop}
	return c
}

// take decodes a record and puts it behind those that wait, once there is memory
// for it. It gives up when the bus's session ends, which the message's context
// tells: the partition's next owner reads the record. The claim itself ends only
// after take has returned.
func (c *rawClaim) take(msg *message.Message) error {
	at, err := pipeline.PositionOf(msg)
	if err != nil {
		return err
	}
	if at.Offset < c.next {
		return nil // delivered again
	}
	ctx, cancel := context.WithCancel(msg.Context())
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	record := c.admit(ctx, msg)
	if record == nil {
		return nil
	}
	record.at = at
	c.put(record)
	c.next = at.Offset + 1
	return nil
}

// admit waits until there is memory for a record, and decodes it; nil: ctx has
// ended. A record that fits into the claim's own part of the memory waits for no
// other claim. One that does not waits for the part that is for large ones.
func (c *rawClaim) admit(ctx context.Context, msg *message.Message) *rawRecord {
	for !c.hasRoom() {
		select {
		case <-c.room:
		case <-ctx.Done():
			return nil
		}
	}
	memory := c.raw.memory
	if record := c.decode(msg, &lease{share: memory, limit: max(c.left(), 1)}); record != nil {
		return record
	}
	most := 4*int64(len(msg.Payload)) + secondBuffer
	if isContainer(msg.Payload) {
		most += 2 * c.raw.stage.cfg.MaxDecompressedBytes // what its frames come to, and their tensors
	}
	most = min(most, memory.least)
	if c.raw.large.Acquire(ctx, most) != nil {
		return nil
	}
	if !memory.wait(ctx, c.ctx, most) {
		c.raw.large.Release(most)
		return nil
	}
	record := c.decode(msg, &lease{share: memory, taken: most, soft: true})
	record.large = min(most, record.held.used)
	c.raw.large.Release(most - record.large)
	return record
}

// decode returns nil where the lease has not enough memory.
func (c *rawClaim) decode(msg *message.Message, held *lease) *rawRecord {
	own := len(msg.Payload) + messageBytes
	record := &rawRecord{msg: msg, held: held}
	fits := held.grow(own)
	if fits {
		b := &batch{cfg: &c.raw.stage.cfg, path: c.path, held: held}
		record.frames, record.refusal = c.decoders.rawFrames(msg, b)
		held.shrink(b.decoders)
		fits = record.refusal == nil || record.refusal.reason != reasonOverloaded
	}
	if c.decoders.size() > pooled {
		c.decoders = newDecoders(c.raw.stage.cfg)
	}
	if !fits {
		held.end()
		return nil
	}
	if record.refusal != nil {
		held.used = int64(own) // its frames are forgotten
	}
	held.trim()
	return record
}

// hasRoom is false where enough of the partition waits, or is on its way: what
// other partitions need is theirs.
func (c *rawClaim) hasRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes < rawBatchBytes && (c.bytes+c.flying == 0 || c.bytes+c.flying < c.raw.each.Load())
}

// left is what the claim may use besides what waits, or is on its way.
func (c *rawClaim) left() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.raw.each.Load() - c.bytes - c.flying
}

func (c *rawClaim) put(r *rawRecord) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		c.raw.free(r)
		return
	}
	c.waiting = append(c.waiting, r)
	c.bytes += r.held.used
	signal(c.taken)
}

// signal wakes the one that waits, now or when it next does.
func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// forward settles what waits, all of it at a time, until the claim ends.
func (c *rawClaim) forward() {
	defer c.forget()
	for {
		select {
		case <-c.taken:
		case <-c.ctx.Done():
			return
		}
		c.mu.Lock()
		records := c.waiting
		c.flying, c.waiting, c.bytes = c.bytes, nil, 0
		c.mu.Unlock()
		signal(c.room)
		if len(records) == 0 {
			continue
		}
		settled := c.settle(records)
		for _, r := range records {
			c.raw.free(r)
		}
		if !settled {
			return
		}
		c.mu.Lock()
		c.settled, c.flying = records[len(records)-1].at.Offset+1, 0
		c.mu.Unlock()
		signal(c.room)
		for _, r := range records {
			c.raw.count(r)
		}
	}
}

// forget gives back what waits and will not be forwarded.
func (c *rawClaim) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for _, r := range c.waiting {
		c.raw.free(r)
	}
	c.waiting, c.bytes = nil, 0
}

// settle returns once each record is forwarded or a dead letter, and false where
// the claim ends before. Until then nothing behind them is forwarded.
func (c *rawClaim) settle(records []*rawRecord) bool {
	for _, r := range records {
		if r.refusal == nil && len(r.frames.tensors) > 0 && !c.until("tensors", func() error { return c.keepTensors(r) }) {
			return false
		}
	}
	if !c.until("frames", func() error { return c.publish(records) }) {
		return false
	}
	for _, r := range records {
		if r.refusal != nil {
			c.dead.Add(c.raw.topics.SeedRawDead, c.deadLetter(r))
		}
	}
	return c.until("dead", c.dead.Flush)
}

// The pause before something is tried again grows from the one to the other.
const (
	shortestRawPause = 100 * time.Millisecond
	longestRawPause  = 5 * time.Second
)

// until tries again and again, and returns false where the claim ends before it
// has succeeded.
func (c *rawClaim) until(what string, try func() error) bool {
	for pause := shortestRawPause; c.ctx.Err() == nil; pause = min(2*pause, longestRawPause) {
		err := try()
		if err == nil {
			return true
		}
		if c.ctx.Err() != nil {
			return false
		}
		c.raw.metrics.retries.WithLabelValues(what).Inc()
		c.raw.stage.warn("records of the raw topic wait", "partition", c.about.Partition, "for", what, "error", err)
		pipeline.Pause(c.ctx, pause)
	}
	return false
}

// keepTensors has a record refused whose tensors the store will never take. Its
// error is of one that may take them later.
func (c *rawClaim) keepTensors(r *rawRecord) error {
	refusal := c.raw.stage.storeTensors(c.ctx, r.frames)
	if c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	if refusal != nil && refusal.Status >= http.StatusInternalServerError {
		return errors.New(refusal.Detail)
	}
	r.refusal = refusal
	return nil
}

// publish hands the frames of all records to the bus, as one batch. A record
// that the bus will never take is refused.
func (c *rawClaim) publish(records []*rawRecord) error {
	var all []*message.Message
	for _, r := range records {
		all = append(all, r.messages()...)
	}
	topic := c.raw.topics.SeedMetrics
	err := c.raw.publisher.PublishContext(c.ctx, topic, all...)
	if !pipeline.IsTooLarge(err) {
		return err
	}
	c.raw.stage.warn(belowLimit, "limit", c.raw.stage.cfg.MaxMessageBytes, "error", err)
	for _, r := range records {
		err := c.raw.publisher.PublishContext(c.ctx, topic, r.messages()...)
		if pipeline.IsTooLarge(err) {
			err = c.publishSingly(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// publishSingly publishes a record's frames one by one: what the bus refuses of
// several as too large may be their batch. It has the record refused where one of
// them is.
func (c *rawClaim) publishSingly(r *rawRecord) error {
	var refused []int
	var why error
	messages := r.messages()
	for i, m := range messages {
		err := c.raw.publisher.PublishContext(c.ctx, c.raw.topics.SeedMetrics, m)
		if pipeline.IsTooLarge(err) {
			refused, why = append(refused, i), err
		} else if err != nil {
			return err
		}
	}
	if len(refused) > 0 {
		r.refusal = newProblem(http.StatusRequestEntityTooLarge, reasonTooLarge,
			"the bus refused %d of the %d frames of this record as too large, the first of them frame %d, and has the other %d; split its frames by seed ids (%v)",
			len(refused), len(messages), refused[0], len(messages)-len(refused), why)
	}
	return nil
}

func (r *rawRecord) messages() []*message.Message {
	if r.refusal != nil {
		return nil
	}
	return r.frames.messages
}

// untilEnd publishes for a claim, until it ends.
type untilEnd struct{ claim *rawClaim }

func (u untilEnd) Publish(topic string, messages ...*message.Message) error {
	return u.claim.raw.publisher.PublishContext(u.claim.ctx, topic, messages...)
}

func (untilEnd) Close() error { return nil }

// deadLetter is the record, with why it is refused.
func (c *rawClaim) deadLetter(r *rawRecord) *message.Message {
	return pipeline.SideMessage(r.msg, c.about.Topic, r.at, pipeline.Rejection{Stage: "ingest", Reason: string(r.refusal.reason), Detail: r.refusal.Detail})
}

// drop counts a dead letter that its topic will never take.
func (c *rawClaim) drop(topic string, msg *message.Message, err error) {
	c.raw.metrics.lost.WithLabelValues(lostTooLarge).Inc()
	c.raw.logger.Error("a record is lost: the bus will never take it", "topic", topic, "bytes", len(msg.Payload), "offset", msg.Metadata.Get(oona.HeaderErrorOffset), "error", err)
}

// commit returns the offset that may be committed, and whether it is new.
func (c *rawClaim) commit() (settled int64, due bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settled, c.settled > max(c.committed, c.about.Start)
}

// count notes what became of a record.
func (r *Raw) count(record *rawRecord) {
	if why := record.refusal; why != nil {
		r.metrics.records.WithLabelValues(rawDead).Inc()
		r.metrics.dead.WithLabelValues(string(why.reason)).Inc()
		r.stage.warn("a record of the raw topic is a dead letter", "reason", why.reason, "detail", why.Detail, "partition", record.at.Partition, "offset", record.at.Offset)
		return
	}
	r.metrics.records.WithLabelValues(rawForwarded).Inc()
	r.stage.metrics.accept(record.frames)
}
