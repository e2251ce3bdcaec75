package forward

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/outage"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/entry"
)

// lane sends the messages that the spool has for a topic, in order. Lanes do not wait for one
// another.
type lane struct {
	*Forwarder
	topic string // name of the queue; empty for the queue of an earlier version, which has messages of any topic
	queue *spool.Spool

	unsent batch     // the batch that run had when its context ended; drain sends it
	ahead  *received // the first record of the next batch if it was already read from the spool, or nil

	unusable atomic.Pointer[error] // why nothing can be published to this topic although the bus may accept other topics, or nil
	oldest   atomic.Int64          // when the first record that is being sent was spooled, in microseconds; 0 if there is none

	lapses map[oona.RunID]int // number of frames of each run that have become too old and are not logged yet
	logged time.Time          // when such frames were last logged
}

// run sends the records of the queue until ctx ends.
func (l *lane) run(ctx context.Context) {
	defer l.logLapses(0)
	var unreadable outage.Outage
	for {
		b, err := l.next(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, spool.ErrClosed):
			l.unsent = b // the spool does not return the records of b again
			return
		case err != nil:
			if _, say := unreadable.Fails("", time.Now()); say {
				l.cfg.Logger.Error("the spool cannot be read, so its records are not sent; trying again every second", "topic", l.topic, "err", err)
			}
			bus.Pause(ctx, time.Second)
			continue
		}
		unreadable.Ends()
		if len(b.messages) == 0 { // no record could be decoded
			l.done(b)
		} else if !l.send(ctx, b) {
			l.unsent = b
			return
		}
	}
}

// drain sends the records of the queue until it is empty, the bus does not accept a batch, or
// ctx ends.
func (l *lane) drain(ctx context.Context) error {
	defer l.logLapses(0)
	for !l.queue.Empty() {
		b, err := l.unsent, error(nil)
		if len(b.records) == 0 {
			b, err = l.next(ctx)
		}
		l.unsent = b
		if err == nil && len(b.messages) > 0 {
			err = l.attempt(ctx, b)
		}
		if l.astray(b, err) {
			err = l.move(&b)
			l.unsent = b
		} else if err == nil {
			l.sent(b)
		}
		if err != nil {
			return err
		}
		l.unsent = batch{}
		if !bus.Pause(ctx, time.Until(l.pace.take(b.bytes))) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// batch has the records that are sent together. They are for one topic, and no record is divided.
type batch struct {
	topic    string
	records  []*received
	messages []*message.Message
	bytes    int
	oldest   oona.Micros
}

// mostBatch is the size in bytes at which a batch is full.
const mostBatch = 128 << 10

// received is a decoded record of the spool.
type received struct {
	spool.Record
	*entry.Entry
}

// receive waits for a record. If the record cannot be decoded, receive sets it aside, and the result
// has no messages.
func (l *lane) receive(ctx context.Context) (*received, error) {
	if r := l.ahead; r != nil {
		l.ahead = nil
		return r, nil
	}
	r, err := l.queue.Next(ctx)
	if err != nil {
		return nil, err
	}
	r.Body = bytes.Clone(r.Body)
	e, err := entry.Decode(r.Body)
	if err != nil {
		l.putAside(r, err)
		e = new(entry.Entry)
	}
	return &received{r, e}, nil
}

// next waits for a record. It returns the record and those after it that are for the same topic, as
// long as they are already in the spool.
func (l *lane) next(ctx context.Context) (b batch, err error) {
	atOnce, cancel := context.WithCancel(ctx)
	defer cancel()
	for wait := ctx; b.bytes < mostBatch; wait = atOnce {
		r, err := l.receive(wait)
		if err != nil {
			if len(b.records) > 0 {
				err = nil // the spool has no further record; the next call returns any other error
			}
			return b, err
		}
		cancel()
		if len(b.messages) > 0 && len(r.Messages) > 0 && r.Topic != b.topic {
			l.ahead = r
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
	b.records, b.bytes = append(b.records, r), b.bytes+len(r.Body)
	b.messages = append(b.messages, r.Messages...)
}

// Pauses between attempts to send a batch.
const (
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
)

// send tries to send a batch until the bus has accepted it. It returns false if ctx ends before that.
func (l *lane) send(ctx context.Context, b batch) bool {
	l.oldest.Store(int64(b.oldest))
	defer l.oldest.Store(0)
	due := l.pace.take(b.bytes)
	var noRoom outage.Outage
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := l.attempt(ctx, b)
		switch {
		case err == nil:
			l.sent(b)
			bus.Pause(ctx, time.Until(due))
			return true
		case ctx.Err() != nil:
			return false
		case l.astray(b, err):
			if err = l.move(&b); err == nil {
				return true
			}
			if _, say := noRoom.Fails("", time.Now()); say {
				l.cfg.Logger.Warn("a topic cannot be used, and the spool could not move the records for it out of the way, so the records after them are not sent, either; trying again", "topic", b.topic, "err", err)
			}
		case !l.cfg.OfTopic(err):
			l.isAway(b.topic, err)
		}
		if !bus.Pause(ctx, wait) {
			return false
		}
	}
}

// attempt tries once to send a batch. It sets aside records that the bus will never accept.
func (l *lane) attempt(ctx context.Context, b batch) error {
	if b.topic != l.topic {
		if err := l.spool.Behind(b.topic, entry.Runs(b.messages)...); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	err := l.cfg.Publish(ctx, b.topic, b.messages)
	if refused := l.cfg.Refused(err); len(refused) > 0 {
		l.putRefusedAside(b, refused, err)
		err = nil
	}
	if err != nil && l.cfg.OfTopic(err) && b.topic == l.topic {
		l.unusable.Store(&err)
	} else {
		l.unusable.Store(nil)
	}
	return err
}

// astray reports whether a batch must be moved to the queue of its topic, because it is in the queue
// without a name and cannot be sent from there.
func (l *lane) astray(b batch, err error) bool {
	return err != nil && b.topic != l.topic && (errors.Is(err, spool.ErrBehind) || l.cfg.OfTopic(err))
}

// move moves a batch to the lane of its topic, so that it does not block the batches after
// it. After an error, b has the records that were not moved.
func (l *lane) move(b *batch) error {
	to, err := l.lane(b.topic)
	if err != nil {
		return err
	}
	for len(b.records) > 0 {
		r := b.records[0]
		if len(r.Messages) > 0 { // a record without messages was already set aside
			if err := to.queue.AppendMoved(context.Background(), entry.Runs(r.Messages), r.Body); err != nil {
				return err
			}
		}
		l.done(batch{records: b.records[:1]})
		b.records, b.messages = b.records[1:], b.messages[len(r.Messages):]
	}
	return nil
}

// putRefusedAside sets aside the records that have refused messages.
func (l *lane) putRefusedAside(b batch, refused []int, why error) {
	first := 0
	for _, r := range b.records {
		end := first + len(r.Messages)
		if slices.ContainsFunc(refused, func(m int) bool { return m >= first && m < end }) {
			l.putAside(r.Record, why)
		}
		first = end
	}
}

func (l *lane) sent(b batch) {
	if l.exists(b.topic) {
		l.cfg.Logger.Info("the topic exists now; what the spool has for it is being sent", "topic", b.topic)
	}
	if len(b.messages) > 0 && l.away.Swap(false) {
		l.cfg.Logger.Info("the bus accepts frames and events again; the records in the spool are being sent", "records", l.spool.Stats().Records)
	}
	l.sentFrames.Add(float64(len(b.messages)))
	l.countLapses(b)
	l.done(b)
}

func (l *lane) done(b batch) {
	if err := l.queue.Done(b.records[len(b.records)-1].Sequence); err != nil {
		l.cfg.Logger.Warn("the spool could not save which records were sent, or could not delete a file of them; after a restart, some may be sent again", "err", err)
	}
}

// putAside sets aside a record of which all or a part cannot be sent. It writes the record to a
// separate file, so that it does not block the records after it.
func (l *lane) putAside(r spool.Record, why error) {
	l.setAside.Inc()
	l.cfg.Logger.Error("all or part of a record of the spool can never be sent; the record is set aside (oona spool cat --set-aside shows it), and the records after it are sent",
		"topic", l.topic, "record", r.Sequence, "err", errors.Join(why, l.queue.SetAside(r)))
}

// Frames that have become too old are logged at most every lapsesEvery, and at once when mostLapses
// runs have some.
const (
	lapsesEvery = 10 * time.Second
	mostLapses  = 100
)

// countLapses counts the frames of a batch that have become too old while they were in the spool.
func (l *lane) countLapses(b batch) {
	for _, r := range b.records {
		for run, frames := range l.cfg.Lapsed(r.Spooled, r.Messages) {
			l.lapsed.Add(float64(frames))
			l.lapses[run] += frames
		}
		if len(l.lapses) >= mostLapses {
			l.logLapses(0)
		}
	}
	l.logLapses(lapsesEvery)
}

// logLapses logs the counted frames, unless it has logged some within the given time.
func (l *lane) logLapses(every time.Duration) {
	if len(l.lapses) == 0 || time.Since(l.logged) < every {
		return
	}
	for run, frames := range l.lapses {
		l.cfg.Logger.Warn("frames were sent from the spool after they had become too old for the windows (max-delay); the aggregator puts them into the quarantine topic", "run", run, "frames", frames)
	}
	clear(l.lapses)
	l.logged = time.Now()
}
