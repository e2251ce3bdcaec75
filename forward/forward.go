// Package forward sends the frames and events of ingest to the bus, and keeps them in a spool
// while the bus is unavailable.
//
//	Send ──▶ the bus acknowledges the messages ──▶ on the bus
//	    └──▶ the bus does not acknowledge them, or the spool has earlier messages of the run and topic ──▶ in the spool ──▶ Run: in order ──▶ on the bus
//
// The messages of a run to a topic stay in order: as long as the spool has some of them, later ones are
// appended to the spool. Other runs do not wait. The spool has a queue for each topic, so the messages
// for one topic do not wait for those for another. The windows do not need more order than this,
// because a run has one watermark, and all frames go to one topic.
//
// The bus may have a message that it has not acknowledged. The message is then sent twice. A frame is
// folded once nevertheless, because both copies have the same identity. Readers of events recognise the
// second event as a repeat.
package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/outage"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/entry"
)

// Config configures a Forwarder.
type Config struct {
	// Publish publishes messages, and returns when the bus has acknowledged them. It may
	// return later than its context ends.
	Publish func(ctx context.Context, topic string, messages []*message.Message) error
	// Permanent reports whether an error has another cause than an outage of the bus. Send returns such
	// an error and does not use the spool.
	Permanent func(error) bool
	// Refused returns the indexes of the messages that the bus will never accept, if the error means
	// that the bus has accepted all other messages. For other errors it returns none.
	Refused func(error) []int
	// OfTopic reports whether an error concerns only one topic and will last, such as a missing
	// topic. As long as it lasts, Send returns the error and adds nothing to the queue of the topic.
	OfTopic func(error) bool
	// Lapsed returns how many frames of each run have become too old while they were in the
	// spool. spooled is the time at which the messages were written to the spool. Lapsed is
	// called after the bus has accepted the messages.
	Lapsed func(spooled oona.Micros, messages []*message.Message) map[oona.RunID]int
	// After is how long Send waits for the bus before it uses the spool.
	After time.Duration
	// Timeout limits one attempt of Run.
	Timeout time.Duration
	// BytesPerSecond limits how fast Run sends the spool, so that it does not delay
	// requests that go directly to the bus.
	BytesPerSecond int64
	Logger         *slog.Logger
}

// Forwarder sends messages to the bus or to the spool. It is safe for concurrent use.
type Forwarder struct {
	cfg   Config
	spool *spool.Queues
	pace  pace

	away   atomic.Bool    // whether an attempt has failed for a reason that is not the topic's, and no lane could send since then
	beside sync.WaitGroup // attempts to publish, which may continue after Send has returned

	mu      sync.Mutex
	outage  outage.Outage             // of the bus
	missing map[string]*outage.Outage // of topics that do not exist
	lanes   []*lane                   // one for each queue of the spool
	added   chan struct{}             // closed and replaced when a lane is added

	spooledFrames, sentFrames, setAside, lapsed prometheus.Counter
}

// New returns a Forwarder. The caller closes the spool.
func New(cfg Config, s *spool.Queues, registerer prometheus.Registerer) (*Forwarder, error) {
	f := &Forwarder{cfg: cfg, spool: s, pace: pace{bytesPerSecond: cfg.BytesPerSecond}, missing: make(map[string]*outage.Outage), added: make(chan struct{})}
	for _, topic := range s.Names() {
		if _, err := f.lane(topic); err != nil {
			return nil, fmt.Errorf("forward: %w", err)
		}
	}
	if err := f.register(registerer); err != nil {
		return nil, fmt.Errorf("forward: register metrics: %w", err)
	}
	return f, nil
}

// lane returns the lane of a topic, and makes it if there is none.
func (f *Forwarder) lane(topic string) (*lane, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.find(topic); l != nil {
		return l, nil
	}
	queue, err := f.spool.Queue(topic)
	if err != nil {
		return nil, err
	}
	l := &lane{Forwarder: f, topic: topic, queue: queue, lapses: make(map[oona.RunID]int)}
	f.lanes = append(f.lanes, l)
	close(f.added)
	f.added = make(chan struct{})
	return l, nil
}

// find returns the lane of a topic, or nil if there is none. The caller must hold mu.
func (f *Forwarder) find(topic string) *lane {
	for _, l := range f.lanes {
		if l.topic == topic {
			return l
		}
	}
	return nil
}

// before returns the lane that must send before messages of the runs can be sent to a topic, or nil.
// Either its queue may have earlier messages of the runs; this may be the queue without a name, in which
// an earlier version kept the messages of all topics. Or the lane knows that the topic cannot be used, and
// will notice when it can.
func (f *Forwarder) before(topic string, runs []string) *lane {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range []string{"", topic} {
		l := f.find(name)
		if l == nil {
			continue
		}
		unusable := l.unusable.Load() != nil || f.missing[name] != nil
		if l.queue.Holds(runs...) || unusable && !l.queue.Empty() {
			return l
		}
	}
	return nil
}

// Send sends messages, and returns when the bus has acknowledged them or when they are in the
// spool. If the bus returns a permanent error, Send returns it. Otherwise an error says why the
// messages could not be written to the spool; it wraps spool.ErrFull if the spool is full.
// release is called when no attempt uses the messages any more, which may be after Send has
// returned.
func (f *Forwarder) Send(topic string, messages []*message.Message, release func()) (spooled bool, err error) {
	runs := entry.Runs(messages)
	if l := f.before(topic, runs); l != nil {
		defer release()
		if why := l.unusable.Load(); why != nil {
			return false, *why
		}
		return true, f.keep(l, topic, runs, messages)
	}
	if f.away.Load() && !f.spool.Empty() {
		defer release()
		return true, f.keep(nil, topic, runs, messages)
	}
	ctx, cancel := context.WithTimeout(context.Background(), f.cfg.After)
	defer cancel()
	result := make(chan error, 1)
	f.beside.Go(func() {
		defer release()
		result <- f.cfg.Publish(ctx, topic, messages)
	})
	select {
	case err = <-result:
	case <-ctx.Done():
		err = fmt.Errorf("no answer within %s: %w", f.cfg.After, context.Cause(ctx))
	}
	if err == nil || f.cfg.Permanent(err) {
		return false, err
	}
	if kept := f.keep(nil, topic, runs, messages); kept != nil {
		return true, errors.Join(kept, err)
	}
	f.isAway(topic, err)
	return true, nil
}

// isAway notes that the bus has not accepted messages for a topic, perhaps only because the topic is
// missing. It logs this at the beginning of an outage and rarely after that, because the cause may be one
// that somebody has to correct.
func (f *Forwarder) isAway(topic string, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	lasts, text := &f.outage, "the bus does not answer, or does not accept frames and events; they are kept in the spool, and are sent when the bus accepts them"
	if errors.Is(why, bus.ErrNoTopic) { // the bus may accept messages for other topics
		if f.missing[topic] == nil {
			f.missing[topic] = new(outage.Outage)
		}
		lasts, text = f.missing[topic], "a topic does not exist; its frames or events are kept in the spool, and are sent when the topic exists; create it with oona topics apply"
	} else if !f.away.Swap(true) {
		f.outage.Ends()
	}
	if _, say := lasts.Fails("", time.Now()); say {
		f.cfg.Logger.Warn(text, "topic", topic, "err", why)
	}
}

// exists notes that the bus has accepted messages for a topic. It reports whether the topic was
// missing before.
func (f *Forwarder) exists(topic string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.missing[topic] != nil
	delete(f.missing, topic)
	return was
}

// keep puts messages into the queue of a lane. If l is nil, it is the lane of the topic.
func (f *Forwarder) keep(l *lane, topic string, runs []string, messages []*message.Message) (err error) {
	if l == nil {
		if l, err = f.lane(topic); err != nil {
			return err
		}
	}
	e := &entry.Entry{Spooled: oona.MicrosOf(time.Now()), Topic: topic, Messages: messages}
	if err := l.queue.Append(context.Background(), runs, entry.Append(nil, e)); err != nil {
		return err
	}
	f.spooledFrames.Add(float64(len(messages)))
	return nil
}

// Wait waits until all attempts of Send have ended.
func (f *Forwarder) Wait() { f.beside.Wait() }

// Keys returns the keys of a record of the spool, for spool.Options.
func Keys(body []byte) []string {
	e, err := entry.Decode(body)
	if err != nil {
		return nil // Run sets the record aside
	}
	return entry.Runs(e.Messages)
}

// Run sends the messages in the spool until ctx ends. The messages of each topic stay in order.
func (f *Forwarder) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for started := 0; ; {
		f.mu.Lock()
		lanes, added := f.lanes[started:], f.added
		f.mu.Unlock()
		for _, l := range lanes {
			running.Go(func() { l.run(ctx) })
		}
		started += len(lanes)
		select {
		case <-added:
		case <-ctx.Done():
			return nil
		}
	}
}

// Drain sends the messages in the spool until the spool is empty, the bus refuses a batch, or ctx
// ends. Messages for a topic that cannot be used stay in the spool. Drain must not be called
// before Run and all calls of Send have returned. It returns the number of records that are still
// in the spool.
func (f *Forwarder) Drain(ctx context.Context) int64 {
	for i := 0; ; i++ {
		f.mu.Lock()
		lanes := f.lanes // read again each time, because the lane of the queue without a name may add others
		f.mu.Unlock()
		if i == len(lanes) {
			break
		}
		if err := lanes[i].drain(ctx); err != nil {
			f.cfg.Logger.Info("not everything in the spool was sent before the end; the rest stays there, and an ingest that is started with the same spool sends it", "err", err)
			if !f.cfg.OfTopic(err) {
				break
			}
		}
	}
	return f.spool.Stats().Records
}

// pace limits the total rate at which the lanes send.
type pace struct {
	bytesPerSecond int64

	mu   sync.Mutex
	free time.Time
}

// take counts bytes that are sent now, and returns when more may be sent.
func (p *pace) take(bytes int) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(bytes) / float64(p.bytesPerSecond) * float64(time.Second)))
	return p.free
}
