package replay

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Comparison says how far the rollups of a replay and those of a topic agree. Rollups whose
// triggers are outside the range that was folded are not compared.
type Comparison struct {
	Same     int64 `json:"same"`     // rollups that are equal, byte for byte
	Differ   int64 `json:"differ"`   // rollups with the same trigger and different bytes
	Replayed int64 `json:"replayed"` // rollups that only the replay has
	// Pending counts rollups of the replay that come after all rollups of the topic. An
	// aggregator that is behind has not emitted them yet.
	Pending int64 `json:"pending"`
	Logged  int64 `json:"logged"` // rollups that only the topic has
	// Repeats counts rollups that the topic has again, because an aggregator has restarted. A repeat
	// with different bytes also counts as Differ. If an aggregator went back very far, its repeats
	// cannot be compared. They also count as Unchecked.
	Repeats   int64 `json:"repeats"`
	Unchecked int64 `json:"unchecked"`
	// Deleted counts rollups of the replay that come before all rollups of a topic that has lost
	// its beginning.
	Deleted int64 `json:"deleted"`
	// Unanswered counts rollups of the topic that cannot be compared because the log has lost its
	// beginning: the replay cannot compute their windows, or these are still open at the end of the
	// range.
	Unanswered int64 `json:"unanswered"`
	// First describes the first difference. It is empty if there is none.
	First string `json:"first,omitempty"`
}

// Add adds another comparison.
func (c *Comparison) Add(other Comparison) {
	c.Same += other.Same
	c.Differ += other.Differ
	c.Replayed += other.Replayed
	c.Pending += other.Pending
	c.Logged += other.Logged
	c.Repeats += other.Repeats
	c.Unchecked += other.Unchecked
	c.Deleted += other.Deleted
	c.Unanswered += other.Unanswered
	if c.First == "" {
		c.First = other.First
	}
}

// Equal reports whether there is no difference.
func (c Comparison) Equal() bool { return c.Differ == 0 && c.Replayed == 0 && c.Logged == 0 }

func (c *Comparison) note(n *int64, what string, r *rollupKey) {
	*n++
	if c.First == "" {
		c.First = fmt.Sprintf("%s: %s of %s/%s, window %s to %s, trigger %d/%d/%d", what, r.group, r.run, r.layer,
			r.start.Time().Format(time.RFC3339Nano), r.end.Time().Format(time.RFC3339Nano), r.trigger.Incarnation, r.trigger.Offset, r.trigger.Index)
	}
}

// rollupKey identifies a rollup.
type rollupKey struct {
	group      oona.Group
	run        oona.RunID
	layer      oona.LayerID
	timeline   oona.TimelineID
	start, end oona.Micros
	trigger    oona.Trigger
}

// logged has the parts of a rollup that are compared. The rollup is from a topic, or was emitted.
type logged struct {
	rollupKey
	content [sha256.Size]byte
}

// comparing compares the rollups of a group that a replay emits with those of a topic. Both
// come in the order of their triggers, so it keeps only rollups that have no counterpart yet.
//
// If the beginning of the log is lost, the engine's clock began at another record than the clock
// of the aggregator, and another record may have closed a window. Then rollups are matched by their
// windows, and compared without their triggers and the fields that depend on them.
type comparing struct {
	out    *Rollups
	lost   *lost // nil if the past is known
	oldest bool  // whether the topic still has its first rollup

	next    func() (logged, error, bool)
	stop    func()
	head    logged // the next rollup of the topic
	more    bool   // whether there is a head
	first   bool   // whether a rollup was read
	lowest  oona.Trigger
	highest oona.Trigger // highest trigger that was read from the topic
	recent  recent

	unmatched [2]map[rollupKey]logged // rollups without a counterpart: of the topic, and of the replay
	reached   map[series]oona.Micros  // start of the last window that the replay emitted; only if the beginning is lost
}

// series is a series of windows, one after the other.
type series struct {
	run      oona.RunID
	layer    oona.LayerID
	timeline oona.TimelineID
}

func (k *rollupKey) series() series { return series{k.run, k.layer, k.timeline} }

const (
	ofTopic = iota
	ofReplay
)

// comparing begins the comparison of a group.
func (f *foldingAgain) comparing(ctx context.Context, group oona.Group) (*comparing, error) {
	topic := f.Topics.Rollup(group)
	extents, err := f.Compare.Extents(ctx, topic)
	if err != nil {
		return nil, err
	}
	if int(f.out.Partition) >= len(extents[topic]) {
		return nil, fmt.Errorf("%s has %d partitions, so it has no rollups of partition %d of the frames", topic, len(extents[topic]), f.out.Partition)
	}
	held := extents[topic][f.out.Partition]
	c := &comparing{out: f.out, lost: f.machine.lost, oldest: held.Start == 0, reached: make(map[series]oona.Micros)}
	for i := range c.unmatched {
		c.unmatched[i] = make(map[rollupKey]logged)
	}
	c.next, c.stop = iter.Pull2(rollupsOf(ctx, f.Compare, topic, bus.Range{Partition: f.out.Partition, From: held.Start, End: held.End}, group, c.content))
	if err := c.read(); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// rollupsOf returns the rollups of a topic. It leaves out records that are not rollups of the group,
// because readers skip them, too.
func rollupsOf(ctx context.Context, log Log, topic string, r bus.Range, group oona.Group, content func(*oona.Rollup, []byte) logged) iter.Seq2[logged, error] {
	return func(yield func(logged, error) bool) {
		err := log.Read(ctx, topic, r, func(msg *message.Message) error {
			var rollup oona.Rollup
			if _, err := avro.DecodeRollup(msg.Payload, &rollup); err != nil || rollup.Group != group {
				return nil //nolint:nilerr // not a rollup
			}
			if !yield(content(&rollup, msg.Payload), nil) {
				return errFound
			}
			return nil
		})
		if err != nil && !errors.Is(err, errFound) {
			yield(logged{}, err)
		}
	}
}

// content returns the parts of a rollup that are compared.
func (c *comparing) content(r *oona.Rollup, payload []byte) logged {
	l := logged{rollupKey{r.Group, r.Run, r.Layer, r.Timeline, r.Start, r.End, r.Trigger}, sha256.Sum256(payload)}
	if c.lost != nil {
		r.Trigger, r.Watermark, r.Rates.Delay, r.Hash = oona.Trigger{}, 0, 0, 0
		l.content = sha256.Sum256(avro.AppendRollup(nil, r))
	}
	return l
}

// key returns the key by which a rollup and its counterpart are matched.
func (c *comparing) key(l *logged) rollupKey {
	if c.lost == nil {
		return rollupKey{trigger: l.trigger}
	}
	key := l.rollupKey
	key.trigger = oona.Trigger{}
	return key
}

// read reads the next rollup of the topic. It compares repeats with the rollup that they repeat.
func (c *comparing) read() error {
	for {
		head, err, more := c.next()
		if err != nil {
			return err
		}
		c.head, c.more = head, more
		if !more {
			return nil
		}
		if !c.first {
			c.first, c.lowest = true, head.trigger
		} else if !head.trigger.After(c.highest) {
			c.repeated(&head)
			continue
		}
		c.highest = head.trigger
		c.recent.add(&head)
		return nil
	}
}

// repeated compares a rollup that the topic has again.
func (c *comparing) repeated(l *logged) {
	if l.trigger.Offset < c.out.From || l.trigger.Offset >= c.out.End {
		return
	}
	out := &c.out.Comparison
	out.Repeats++
	switch content, known := c.recent.contents[l.trigger]; {
	case !known:
		out.Unchecked++
	case content != l.content:
		out.note(&out.Differ, "the topic has it again with other bytes", &l.rollupKey)
	}
}

// mostRecent is the number of rollups of a group that are remembered, to compare repeats with them.
const mostRecent = 1 << 17

// recent remembers the contents of the last rollups that were read from a topic.
type recent struct {
	contents map[oona.Trigger][sha256.Size]byte
	order    []oona.Trigger // a ring buffer
	oldest   int
}

func (r *recent) add(l *logged) {
	if r.contents == nil {
		r.contents = make(map[oona.Trigger][sha256.Size]byte)
	}
	if len(r.order) < mostRecent {
		r.order = append(r.order, l.trigger)
	} else {
		delete(r.contents, r.order[r.oldest])
		r.order[r.oldest] = l.trigger
		r.oldest = (r.oldest + 1) % mostRecent
	}
	r.contents[l.trigger] = l.content
}

// emitted compares a rollup of the replay.
func (c *comparing) emitted(r *oona.Rollup, payload []byte) error {
	own := c.content(r, payload)
	if c.lost != nil {
		c.reached[own.series()] = own.start
	}
	for c.more && !c.beyond(own.trigger) {
		if err := c.logged(); err != nil {
			return err
		}
	}
	key := c.key(&own)
	if other, found := c.unmatched[ofTopic][key]; found {
		delete(c.unmatched[ofTopic], key)
		c.settle(&own, &other)
	} else {
		c.unmatched[ofReplay][key] = own
	}
	if c.lost == nil { // both sides were read up to this trigger
		c.leave()
	}
	return nil
}

// beyond reports whether the topic's next rollup comes after a trigger.
func (c *comparing) beyond(t oona.Trigger) bool {
	if c.lost != nil {
		return c.head.trigger.Incarnation >= t.Incarnation && c.head.trigger.Offset > t.Offset
	}
	return c.head.trigger.After(t)
}

// logged compares the next rollup of the topic, and reads the one after it.
func (c *comparing) logged() error {
	l := c.head
	if l.trigger.Offset >= c.out.From && (l.trigger.Offset < c.out.End || c.lost != nil) {
		key := c.key(&l)
		if other, found := c.unmatched[ofReplay][key]; found {
			delete(c.unmatched[ofReplay], key)
			c.settle(&other, &l)
		} else {
			c.unmatched[ofTopic][key] = l
		}
	}
	return c.read()
}

func (c *comparing) settle(replayed, logged *logged) {
	if replayed.content == logged.content {
		c.out.Comparison.Same++
		return
	}
	c.out.Comparison.note(&c.out.Comparison.Differ, "the bytes differ", &replayed.rollupKey)
}

// leave counts the rollups that have no counterpart.
func (c *comparing) leave() {
	out := &c.out.Comparison
	for _, l := range c.unmatched[ofReplay] {
		switch {
		case !c.more && (!c.first || l.trigger.After(c.highest)):
			out.Pending++
		case !c.oldest && c.lowest.After(l.trigger):
			out.Deleted++
		default:
			out.note(&out.Replayed, "only the replay has", &l.rollupKey)
		}
	}
	for _, l := range c.unmatched[ofTopic] {
		switch {
		case l.trigger.Offset >= c.out.End:
		case c.unanswered(&l):
			out.Unanswered++
		default:
			out.note(&out.Logged, "only the topic has", &l.rollupKey)
		}
	}
	clear(c.unmatched[ofReplay])
	clear(c.unmatched[ofTopic])
}

// end reads the rest of the topic, and counts the rollups that have no counterpart.
func (c *comparing) end() error {
	for c.more {
		if err := c.logged(); err != nil {
			return err
		}
	}
	c.leave()
	return nil
}

// unanswered reports whether the replay cannot compute the window of a rollup: the window needs lost
// records, or it is still open at the end of the range because the clock of the replay began later.
func (c *comparing) unanswered(l *logged) bool {
	if c.lost == nil {
		return false
	}
	from, known := c.lost.answersFrom()
	open := c.lost.Pace().Open > 0 && c.reached[l.series()] < l.start
	return !known || l.start < from || open
}
