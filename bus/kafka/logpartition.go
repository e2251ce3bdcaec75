package kafka

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// reopenWait is the pause before a partition whose reading has stopped is read again.
const reopenWait = time.Second

// logPartition is a partition consumer that does not stop. The consumer of sarama stops if its
// offset is out of range. Then watermill-kafka ignores the partition, without a log line, until all
// other partitions have stopped, too.
type logPartition struct {
	sarama.PartitionConsumer // the first one; its methods that are not overridden are not called

	consumer  sarama.Consumer
	log       *topicLog
	topic     string
	partition int32
	logger    *slog.Logger

	messages chan *sarama.ConsumerMessage
	errors   chan *sarama.ConsumerError
	ctx      context.Context // ended by Close
	cancel   context.CancelFunc
	reading  sync.WaitGroup
	troubled bool // whether there were errors since the last record
}

func openPartition(consumer sarama.Consumer, log *topicLog, topic string, partition int32) (*logPartition, error) {
	p := &logPartition{
		consumer: consumer, log: log, topic: topic, partition: partition,
		logger:   log.logger.With("topic", topic, "partition", partition),
		messages: make(chan *sarama.ConsumerMessage),
		errors:   make(chan *sarama.ConsumerError),
	}
	first, err := p.open()
	if err != nil {
		return nil, err
	}
	p.PartitionConsumer = first
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.reading.Go(func() { p.read(first) })
	return p, nil
}

func (p *logPartition) Messages() <-chan *sarama.ConsumerMessage { return p.messages }
func (p *logPartition) Errors() <-chan *sarama.ConsumerError     { return p.errors }
func (p *logPartition) AsyncClose()                              { p.cancel() }

func (p *logPartition) Close() error {
	p.cancel()
	p.reading.Wait()
	return nil
}

// read reads until Close. When a consumer stops, it opens another one.
func (p *logPartition) read(from sarama.PartitionConsumer) {
	defer close(p.messages)
	defer close(p.errors)
	for {
		if from != nil {
			p.drain(from)
			if err := from.Close(); err != nil {
				p.logger.Debug("a partition's reader closed with an error", "err", err)
			}
		}
		if !bus.Pause(p.ctx, reopenWait) {
			return
		}
		var err error
		if from, err = p.open(); err != nil {
			p.note(err)
		}
	}
}

// open opens a consumer at the next record. If the log no longer has that record, because it was
// deleted or the topic was created again, the consumer begins with the oldest record.
func (p *logPartition) open() (sarama.PartitionConsumer, error) {
	next := p.log.position(p.partition)
	from, err := p.consumer.ConsumePartition(p.topic, p.partition, next)
	if errors.Is(err, sarama.ErrOffsetOutOfRange) {
		p.logger.Error("records of a partition are skipped, because the next one is not in the log: retention has deleted it, or the topic was created again; continuing with the oldest record", "offset", next)
		from, err = p.consumer.ConsumePartition(p.topic, p.partition, sarama.OffsetOldest)
	}
	return from, err
}

// drain passes on the records of a consumer until it stops or Close is called.
func (p *logPartition) drain(from sarama.PartitionConsumer) {
	for {
		select {
		case <-p.ctx.Done():
			return
		case err, ok := <-from.Errors():
			if !ok {
				return
			}
			p.note(err)
		case r, ok := <-from.Messages():
			if !ok {
				return
			}
			p.troubled = false
			select {
			case p.messages <- r:
				p.log.advance(p.partition, r.Offset+1)
			case <-p.ctx.Done():
				return
			}
		}
	}
}

// note logs the first error of a series as a warning.
func (p *logPartition) note(err error) {
	level := slog.LevelWarn
	if p.troubled {
		level = slog.LevelDebug
	}
	p.troubled = true
	p.logger.Log(p.ctx, level, "cannot read from a partition; trying again", "err", refusedAccess(err))
}
