// Package forward hands the frames and events of ingest on to the bus, and keeps them in a
// spool while the bus is away.
//
//	Send ──▶ the bus acknowledges ─────────────────────────▶ on the bus
//	    └──▶ it does not, or the run has frames in the spool ──▶ in the spool ──▶ Run: in order ──▶ on the bus
//
// The frames of a run stay in order: as long as the spool has frames or events of a run,
// further ones of the run go behind them. Those of other runs do not wait. A run has one
// watermark, so that is as much order as the windows need.
//
// What the bus has not acknowledged may be on it nevertheless, and is then sent twice.
// Such frames are folded once, as they have the same identity, and such events are repeats.
package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/entry"
)

// Config configures a Forwarder.
type Config struct {
	// Publish publishes messages, and returns when the bus has acknowledged them. It may
	// return later than its context ends.
	Publish func(ctx context.Context, topic string, messages []*message.Message) error
	// Permanent recognises an error that is no outage, so that the sender must know of it.
	Permanent func(error) bool
	// Refused returns the messages that the bus never takes, by index, if an error means
	// that it has all others. It returns none for other errors.
	Refused func(error) []int
	// OfTopic recognises an error that lasts and concerns one topic, while others can be used.
	// What the spool has for such a topic is sent after the rest.
	OfTopic func(error) bool
	// After is how long Send waits for the bus before it takes the spool.
	After time.Duration
	// Timeout bounds one attempt of Run.
	Timeout time.Duration
	// BytesPerSecond bounds how fast Run sends what is in the spool, so that requests that
	// do not wait are not delayed.
	BytesPerSecond int64
	Logger         *slog.Logger
}

// Forwarder hands messages on. It is safe for concurrent use.
type Forwarder struct {
	cfg   Config
	spool *spool.Spool

	away   atomic.Bool    // the bus did not answer, and has not answered since
	beside sync.WaitGroup // attempts that Send does not wait for any more

	unsent batch     // what Run had when its context ended, for Drain
	ahead  *received // was read from the spool, and is the start of the next batch; nil: none

	spooledFrames, sentFrames, setAside prometheus.Counter
	oldest                              atomic.Int64 // when the record was spooled that Run has, in microseconds; 0: none
}

// New returns a Forwarder. The caller closes the spool.
func New(cfg Config, s *spool.Spool, registerer prometheus.Registerer) (*Forwarder, error) {
	f := &Forwarder{cfg: cfg, spool: s}
	if err := f.register(registerer); err != nil {
		return nil, fmt.Errorf("forward: register metrics: %w", err)
	}
	return f, nil
}

// Send hands messages on, and returns when the bus has acknowledged them, or when they are
// in the spool. The error is that of the bus if it is permanent, and otherwise says why the
// spool could not take them; it wraps spool.ErrFull if the spool is full. release is called
// when no attempt holds the messages any more; that may be after Send has returned.
func (f *Forwarder) Send(topic string, messages []*message.Message, release func()) (spooled bool, err error) {
	runs := entry.Runs(messages)
	if f.away.Load() && !f.spool.Empty() || f.spool.Holds(runs...) {
		defer release()
		return true, f.keep(topic, runs, messages)
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
	if kept := f.keep(topic, runs, messages); kept != nil {
		return true, errors.Join(kept, err)
	}
	if !f.away.Swap(true) {
		f.cfg.Logger.Warn("the bus is away; frames and events are kept in the spool until it is back", "err", err)
	}
	return true, nil
}

// keep puts messages into the spool.
func (f *Forwarder) keep(topic string, runs []string, messages []*message.Message) error {
	e := &entry.Entry{Spooled: oona.MicrosOf(time.Now()), Topic: topic, Messages: messages}
	if err := f.spool.Append(context.Background(), runs, entry.Append(nil, e)); err != nil {
		return err
	}
	f.spooledFrames.Add(float64(len(messages)))
	return nil
}

// Wait waits until no attempt of Send is running.
func (f *Forwarder) Wait() { f.beside.Wait() }

// Keys returns the keys of a record of the spool, for spool.Options.
func Keys(body []byte) []string {
	e, err := entry.Decode(body)
	if err != nil {
		return nil // Run sets it aside
	}
	return entry.Runs(e.Messages)
}

// Run sends what is in the spool, in order, until ctx ends.
func (f *Forwarder) Run(ctx context.Context) error {
	for {
		batch, err := f.next(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, spool.ErrClosed):
			f.unsent = batch // it may have records nevertheless, which the spool does not return again
			return nil
		case err != nil:
			f.cfg.Logger.Error("the spool cannot be read; the next attempt follows in a second", "err", err)
			bus.Pause(ctx, time.Second)
			continue
		}
		if len(batch.messages) == 0 { // none of them is an entry
			f.done(batch.records[len(batch.records)-1])
		} else if !f.send(ctx, batch) {
			f.unsent = batch
			return nil
		}
	}
}

// Drain is to be called when Run and all calls of Send have returned. It sends what is in
// the spool, until the spool is empty, the bus does not take a batch, or ctx ends. It
// returns the number of records that are left.
func (f *Forwarder) Drain(ctx context.Context) int64 {
	postponed := int64(0) // since something was sent
	for !f.spool.Empty() {
		b, err := f.unsent, error(nil)
		f.unsent = batch{}
		if len(b.records) == 0 {
			b, err = f.next(ctx)
		}
		if err == nil && len(b.messages) > 0 {
			err = f.attempt(ctx, b)
		}
		if err != nil && f.cfg.OfTopic(err) {
			if postponed += int64(len(b.records)); postponed <= f.spool.Stats().Records {
				f.postpone(b)
				continue
			}
		}
		if err != nil {
			f.cfg.Logger.Info("sending what is in the spool has ended", "err", err)
			break
		}
		postponed = 0
		f.sent(b)
		if !bus.Pause(ctx, f.pace(b.bytes)) {
			break
		}
	}
	return f.spool.Stats().Records
}

// batch is what is sent together: whole records, of one topic.
type batch struct {
	topic    string
	records  []spool.Record
	counts   []int // of the messages of each record
	messages []*message.Message
	bytes    int
	oldest   oona.Micros
}

// mostBatch bounds the size of a batch, in bytes, unless a record is larger.
const mostBatch = 1 << 20

// received is a record of the spool, decoded.
type received struct {
	spool.Record
	*entry.Entry
}

// receive waits for a record. One that is no entry is put aside, and has no messages.
func (f *Forwarder) receive(ctx context.Context) (*received, error) {
	if r := f.ahead; r != nil {
		f.ahead = nil
		return r, nil
	}
	r, err := f.spool.Next(ctx)
	if err != nil {
		return nil, err
	}
	r.Body = bytes.Clone(r.Body)
	e, err := entry.Decode(r.Body)
	if err != nil {
		f.putAside(r, err)
		e = new(entry.Entry)
	}
	return &received{r, e}, nil
}

// next waits for a record, and returns it with those of its topic that follow it already.
func (f *Forwarder) next(ctx context.Context) (b batch, err error) {
	atOnce, cancel := context.WithCancel(ctx)
	defer cancel()
	for wait := ctx; b.bytes < mostBatch; wait = atOnce {
		r, err := f.receive(wait)
		if err != nil {
			if len(b.records) > 0 {
				err = nil // it comes again, if it is more than that there is no record now
			}
			return b, err
		}
		cancel()
		if len(b.messages) > 0 && len(r.Messages) > 0 && r.Topic != b.topic {
			f.ahead = r
			break
		}
		b.add(r)
	}
	return b, nil
}

func (b *batch) add(r *received) {
	if len(r.Messages) > 0 {
		b.topic = r.Topic
	}
	if b.oldest == 0 {
		b.oldest = r.Spooled
	}
	b.records, b.bytes = append(b.records, r.Record), b.bytes+len(r.Body)
	b.counts, b.messages = append(b.counts, len(r.Messages)), append(b.messages, r.Messages...)
}

// Pauses after which records are sent again.
const (
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
)

// send sends a batch until the bus has it, or until it is postponed. It returns false if ctx
// ends before that.
func (f *Forwarder) send(ctx context.Context, b batch) bool {
	f.oldest.Store(int64(b.oldest))
	defer f.oldest.Store(0)
	began := time.Now()
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := f.attempt(ctx, b)
		switch {
		case err == nil:
			f.sent(b)
			bus.Pause(ctx, f.pace(b.bytes)-time.Since(began))
			return true
		case ctx.Err() != nil:
			return false
		case f.cfg.OfTopic(err):
			f.away.Store(false)
			f.postpone(b)
			bus.Pause(ctx, postponePause)
			return true
		}
		f.away.Store(true)
		if !bus.Pause(ctx, wait) {
			return false
		}
	}
}

// attempt tries once to send a batch. It puts records aside that the bus never takes.
func (f *Forwarder) attempt(ctx context.Context, b batch) error {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	err := f.cfg.Publish(ctx, b.topic, b.messages)
	if refused := f.cfg.Refused(err); len(refused) > 0 {
		f.putRefusedAside(b, refused, err)
		return nil
	}
	return err
}

// postponePause bounds how often records are postponed for as long as their topic cannot be
// used.
const postponePause = time.Second

// postpone puts the records of a batch behind all others of the spool, as their topic cannot
// be used, and those of other topics can. The records of the topic stay in order.
func (f *Forwarder) postpone(b batch) {
	for i, r := range b.records {
		if b.counts[i] == 0 {
			continue // it was put aside
		}
		if err := f.spool.Append(context.Background(), Keys(r.Body), r.Body); err != nil {
			f.putAside(r, err)
		}
	}
	f.done(b.records[len(b.records)-1])
}

// putRefusedAside puts the records aside that have refused messages.
func (f *Forwarder) putRefusedAside(b batch, refused []int, why error) {
	first := 0
	for i, r := range b.records {
		end := first + b.counts[i]
		if slices.ContainsFunc(refused, func(m int) bool { return m >= first && m < end }) {
			f.putAside(r, why)
		}
		first = end
	}
}

// pace returns how long sending some bytes must take at least.
func (f *Forwarder) pace(bytes int) time.Duration {
	return time.Duration(float64(bytes) / float64(f.cfg.BytesPerSecond) * float64(time.Second))
}

func (f *Forwarder) sent(b batch) {
	if f.away.Swap(false) {
		f.cfg.Logger.Info("the bus is back; what is in the spool is sent now", "records", f.spool.Stats().Records)
	}
	f.sentFrames.Add(float64(len(b.messages)))
	f.done(b.records[len(b.records)-1])
}

func (f *Forwarder) done(r spool.Record) {
	if err := f.spool.Done(r.Sequence); err != nil {
		f.cfg.Logger.Warn("the spool could not save how far it was sent; after a crash, it is sent once more", "err", err)
	}
}

// putAside keeps a record that cannot be sent, or not in whole, in a file, so that it does
// not block those behind it.
func (f *Forwarder) putAside(r spool.Record, why error) {
	f.setAside.Inc()
	f.cfg.Logger.Error("a record of the spool cannot be sent, or not in whole; the record is kept in a file, quarantine-record-..., and the next one is sent",
		"record", r.Sequence, "err", errors.Join(why, f.spool.SetAside(r)))
}
