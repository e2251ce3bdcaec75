package kafka

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// lane is the queue of a partition.
type lane struct {
	producer *producer
	at       topicPartition

	mu      sync.Mutex
	queue   []*part // in order of arrival; records of the first ones may be in the request that is in progress
	running bool
	failure error     // error of the last attempt; nil if it succeeded
	taken   time.Time // time of the last batch that was acknowledged
}

// part is the records of a call for one partition, in order.
type part struct {
	call    *call
	lane    *lane
	records []*outgoing // records that are not acknowledged yet
	sent    int         // number of these records that are in the request in progress
	queued  time.Time
	alone   bool // must not share a batch with other parts, because a shared batch was refused
}

// push appends a part to the queue, and starts the lane if it is idle.
func (l *lane) push(p *part) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.queued = time.Now()
	l.queue = append(l.queue, p)
	if !l.running {
		l.running = true
		l.producer.running.Go(l.run)
	}
}

// Limits for a topic that was deleted. The metadata of brokers may be out of date for a moment, so
// the topic is missing only after noTopicAfter.
const (
	noTopicAfter = time.Second
	noTopicPause = noTopicAfter / 4 // the longest pause between attempts in this time
)

// run sends batches until the queue is empty.
func (l *lane) run() {
	failures := 0
	var unknown time.Time // since when the brokers have said that there is no such topic; zero if the last one did not
	for {
		batch := l.next()
		if len(batch) == 0 {
			return
		}
		err := l.producer.send(l.at, batch)
		l.settle(err)
		if err == nil || !passes(err) {
			failures, unknown = 0, time.Time{}
			continue
		}
		failures++
		pause := backoff(failures)
		if !unknown.IsZero() {
			pause = min(pause, noTopicPause)
		}
		if !bus.Pause(l.producer.closing, pause) {
			continue
		}
		// Of the errors of a refresh, only this one matters: it says that the whole topic is missing, and
		// not only this partition. After others, the next attempt reports what is wrong.
		err = l.producer.client.RefreshMetadata(l.at.topic)
		switch {
		case !errors.Is(err, sarama.ErrUnknownTopicOrPartition):
			unknown = time.Time{}
		case unknown.IsZero():
			unknown = time.Now()
		case time.Since(unknown) >= noTopicAfter:
			l.abandon(noTopic(err))
		}
	}
}

// abandon fails all parts in the queue. No request may be in progress.
func (l *lane) abandon(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failure = err
	for _, p := range l.queue {
		p.fail(err)
	}
	l.queue = nil
}

// next returns the next batch, and marks its records as sent. If the queue is empty, the lane
// becomes idle.
func (l *lane) next() []*outgoing {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	var batch []*outgoing
	size := batchOverhead
	for i, p := range l.queue {
		if i > 0 && (p.alone || l.queue[0].alone) {
			break
		}
		for _, r := range p.records {
			if size += r.size; len(batch) > 0 && size > l.producer.limit {
				return batch
			}
			batch = append(batch, r)
			p.sent++
		}
	}
	l.running = len(batch) > 0
	return batch
}

// expire fails the parts whose time is over.
func (l *lane) expire() {
	l.queue = slices.DeleteFunc(l.queue, func(p *part) bool {
		err := l.expired(p)
		if err != nil {
			p.fail(err)
		}
		return err != nil
	})
}

func (l *lane) expired(p *part) error {
	switch {
	case l.producer.closing.Err() != nil:
		return errors.Join(l.failure, bus.ErrClosed)
	case p.call.ctx.Err() != nil:
		return errors.Join(l.failure, context.Cause(p.call.ctx))
	case l.failure != nil && min(time.Since(p.queued), time.Since(l.taken)) > l.producer.timeout:
		return l.failure
	}
	return nil
}

// settle handles the result of the batch that was sent.
func (l *lane) settle(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := slices.IndexFunc(l.queue, func(p *part) bool { return p.sent == 0 })
	if n < 0 {
		n = len(l.queue)
	}
	batch := l.queue[:n]
	defer func() {
		for _, p := range batch {
			p.sent = 0
		}
		l.queue = slices.DeleteFunc(l.queue, func(p *part) bool { return len(p.records) == 0 })
		l.expire() // now, because before the next attempt the lane may wait for long
	}()
	switch {
	case err == nil:
		l.failure, l.taken = nil, time.Now()
		for _, p := range batch {
			if p.records = p.records[p.sent:]; len(p.records) == 0 {
				p.call.open.Done()
			}
		}
	case passes(err):
		l.failure = err
	case len(batch) == 1:
		batch[0].fail(err)
	default: // a call must not fail because of another call's records
		for _, p := range batch {
			p.alone = true
		}
	}
}

// withdraw fails a part whose context has ended. If some of its records were sent and not answered
// yet, the lane does this when it knows their result.
func (l *lane) withdraw(p *part) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.queue, p); i >= 0 && p.sent == 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
		p.fail(errors.Join(l.failure, context.Cause(p.call.ctx)))
	}
}

// fail completes a part with an error.
func (p *part) fail(err error) {
	p.call.fail(p.records, err)
	p.records = nil
	p.call.open.Done()
}
