package remotewrite

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/layerseries"
	"github.com/morphogenetic/oona/rollups"
)

// pusher is the bus.Consumer of an assigned partition. The bus hands out one of its
// messages at a time, so calls of take do not overlap. push runs concurrently with take.
type pusher struct {
	stage      *Stage
	assignment bus.Assignment
	group      oona.Group
	ctx        context.Context // ends with the assignment
	end        context.CancelFunc
	taken      chan struct{} // signals that a record waits
	left       chan struct{} // signals that records are settled
	room       atomic.Int64  // how many bytes may wait

	// rollups begins anew with each assignment: what was read and not committed is read
	// again, and is not a repeat.
	rollups rollups.Reader // used by take only
	next    int64          // offset after the last record that was taken; used by take only

	mu        sync.Mutex
	waiting   []*record // those in flight among them
	bytes     int64     // of the records in waiting
	from      int64     // first offset to read
	settled   int64     // offset after the last record that the receiver has answered for
	ends      int64     // offset after the last record of the partition
	committed int64
	lost      int64 // records that retention deleted before from, until they are counted
	moved     bool  // the log does not have the offset of the commit, until that is replaced
}

// record is a record that was taken.
type record struct {
	rollup   *oona.Rollup // nil if nothing is to be sent
	late     bool         // see finding
	offset   int64
	appended oona.Micros
	bytes    int64
	samples  int // about
}

func newPusher(s *Stage, a bus.Assignment, from int64) *pusher {
	p := &pusher{
		stage:      s,
		assignment: a,
		taken:      make(chan struct{}, 1),
		left:       make(chan struct{}, 1),
		from:       from,
		next:       from,
		settled:    from,
		ends:       a.LogEnd,
		committed:  a.Committed.Offset,
	}
	if a.Topic == s.cfg.Topics.LayerPerformance {
		p.group = oona.Performance
	}
	p.ctx, p.end = context.WithCancel(context.Background())
	return p
}

// take decodes a record and adds it to those that wait. It waits for room. It gives up
// when the context of the message ends, which ends with the bus's session, or when the
// assignment ends. The next owner of the partition then reads the record.
func (p *pusher) take(msg *message.Message, at bus.Position) {
	if at.Offset < p.next {
		return // it was delivered before
	}
	r := &record{offset: at.Offset, appended: at.Appended, bytes: int64(len(msg.Payload))}
	p.read(r, msg.Payload)
	for !p.put(r) {
		select {
		case <-p.left:
		case <-msg.Context().Done():
			return
		case <-p.ctx.Done():
			return
		}
	}
	p.next = at.Offset + 1
}

// read decodes a record. If its rollup is not to be sent, it counts why.
func (p *pusher) read(into *record, payload []byte) {
	s := p.stage
	where := []any{"topic", p.assignment.Topic, "partition", p.assignment.Partition, "offset", into.offset}
	r, err := layerseries.Decode(p.group, payload)
	if err != nil {
		if n := s.metrics.records.add(1, p.group.String(), undecodable); rare(n) {
			s.logger.Warn("skipped a record that is not a rollup", append(where, "err", err, "count", n)...)
		}
		return
	}
	judged := p.rollups.Read(p.assignment.Partition, r)
	n := s.metrics.records.add(1, p.group.String(), judged.Outcome.String())
	if judged.Outcome != rollups.New {
		if judged.Outcome != rollups.Repeat && rare(n) {
			s.logger.Error("a rollup is not sent to the remote-write receiver, as it contradicts earlier ones", append(where,
				"outcome", judged.Outcome.String(), "run", r.Run, "layer", r.Layer, "end", r.End.Time(), "count", n)...)
		}
		return
	}
	found := s.limits.apply(r, time.Now())
	s.metrics.beyond.add(int64(found.removed), layerseries.Metric)
	if found.beyond != "" {
		s.metrics.beyond.add(1, found.beyond)
		return
	}
	into.rollup, into.late, into.samples = r, found.late, about(r, s.cfg.WorstSeeds)
}

// rare reports whether the nth event of its kind is logged: the 1st, 2nd, 4th, and so on.
func rare(n int64) bool { return n&(n-1) == 0 }

// put adds a record to those that wait, unless there is no room for it.
func (p *pusher) put(r *record) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) > 0 && p.bytes+r.bytes > p.room.Load() {
		return false
	}
	p.waiting = append(p.waiting, r)
	p.bytes += r.bytes
	signal(p.taken)
	return true
}

// signal wakes the goroutine that waits on the channel, now or when it waits next.
func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

const (
	// maxSamples is how many samples a request has at most, unless a single rollup has
	// more.
	maxSamples = 2000
	// linger is how long records wait for others that go with them.
	linger = 250 * time.Millisecond
)

// push sends the records that wait, one batch after the other, until the assignment ends.
func (p *pusher) push() {
	for {
		records, ok := p.batch()
		if !ok || !p.deliver(records) {
			return
		}
		p.settle(records)
	}
}

// batch waits for records that make one request. They stay in waiting until they are
// settled. It returns false if the assignment ends before.
func (p *pusher) batch() ([]*record, bool) {
	for records, _ := p.head(); len(records) == 0; records, _ = p.head() {
		select {
		case <-p.taken:
		case <-p.ctx.Done():
			return nil, false
		}
	}
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for late := false; ; {
		if records, full := p.head(); full || late {
			return records, true
		}
		select {
		case <-p.taken:
		case <-timer.C:
			late = true
		case <-p.ctx.Done():
			return nil, false
		}
	}
}

// head returns the first records that wait and go into one request, and whether no more
// will go into it. A request has at most one window of a layer: what the receiver has
// stored of a request that it has not accepted is then never later than what is sent again.
func (p *pusher) head() (records []*record, full bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	samples := 0
	layers := make(map[layerName]struct{})
	for i, r := range p.waiting {
		if r.rollup == nil {
			continue
		}
		name := layerName{r.rollup.Run, r.rollup.Layer}
		_, again := layers[name]
		if samples += r.samples; again || samples > maxSamples && len(layers) > 0 {
			return p.waiting[:i:i], true
		}
		layers[name] = struct{}{}
	}
	return p.waiting[:len(p.waiting):len(p.waiting)], samples >= maxSamples || 2*p.bytes >= p.room.Load()
}

type layerName struct {
	run   oona.RunID
	layer oona.LayerID
}

// settle removes records that the receiver has answered for.
func (p *pusher) settle(records []*record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range records {
		p.bytes -= r.bytes
	}
	p.waiting = append([]*record(nil), p.waiting[len(records):]...)
	p.settled = records[len(records)-1].offset + 1
	signal(p.left)
}

// Commit returns the offset after the last record that the receiver has answered for.
func (p *pusher) Commit() (bus.Commit, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bus.Commit{Offset: p.settled}, p.settled > max(p.committed, p.from) || p.moved
}

// Committed records the result of a commit.
func (p *pusher) Committed(commit bus.Commit, err error) {
	if err != nil {
		p.stage.logger.Warn("a commit of a rollup topic failed; it is tried again, and after a restart its rollups are sent again",
			"topic", p.assignment.Topic, "partition", p.assignment.Partition, "err", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committed = commit.Offset
	// An assignment may end before anything is read, and then the next one finds the
	// same loss. The first assignment that commits beyond it counts it.
	p.stage.metrics.lost.add(p.lost)
	p.lost, p.moved = 0, false
}

// End records where the partition's log ends.
func (p *pusher) End(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends = max(offset, p.settled)
}

// Revoke ends the assignment. The next owner reads what is not committed.
func (p *pusher) Revoke() {
	s := p.stage
	s.mu.Lock()
	defer s.mu.Unlock()
	p.end()
	delete(s.partitions, p)
	s.divide()
	s.logger.Info("partition released", "topic", p.assignment.Topic, "partition", p.assignment.Partition)
}

// progress is how far a partition is sent.
type progress struct {
	settled, behind int64
	oldest          oona.Micros // when the first record that is not settled was appended; 0 if there is none
}

func (p *pusher) progress() progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := progress{settled: p.settled, behind: max(p.ends-p.settled, int64(len(p.waiting)))}
	if len(p.waiting) > 0 {
		at.oldest = p.waiting[0].appended
	}
	return at
}
