package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/bus"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// history is what the logs of a topic's partitions say of their windows.
type history struct {
	reader     *bus.LogReader
	messages   <-chan *message.Message
	partitions []*partitionHistory // by number
}

// partitionHistory is one partition's, up to the record before next. Its engine
// is given all records as if they had no frames: so it judges configurations as
// an aggregator does.
type partitionHistory struct {
	partition   int32
	start, next int64
	appendedAt  oona.Micros // the greatest append time
	engine      *windows.Engine
	found       []foundConfiguration // in the order of the log
}

// foundConfiguration is a configuration record and what became of it.
type foundConfiguration struct {
	windows.Configuration
	offset     int64
	appendedAt oona.Micros
	holds      bool
	says       string
}

// generation is the highest that was written, also where it is void.
func (p *partitionHistory) generation() (highest int32) {
	for _, f := range p.found {
		highest = max(highest, f.Config.Generation)
	}
	return highest
}

// openHistory begins to read a topic at its beginning.
func openHistory(ctx context.Context, cfg bus.Config, topic string, logger *slog.Logger) (*history, error) {
	reader, err := bus.NewLogReader(cfg, bus.LogReaderOptions{}, logger)
	if err != nil {
		return nil, err
	}
	h := &history{reader: reader}
	if h.messages, err = reader.Subscribe(ctx, topic); err != nil {
		return nil, errors.Join(err, reader.Close())
	}
	for _, claim := range reader.Claims(topic) {
		engine, err := windows.New(windows.DefaultConfig(), func(name string) oona.Metric { return oona.Metric{Name: name} })
		if err != nil {
			return nil, errors.Join(err, reader.Close())
		}
		h.partitions = append(h.partitions, &partitionHistory{partition: claim.Partition, start: claim.Start, next: claim.Start, engine: engine})
	}
	return h, nil
}

func (h *history) close() error { return h.reader.Close() }

// read goes on to where the logs end, by partition.
func (h *history) read(ctx context.Context, ends map[int32]int64) error {
	missing := 0
	for _, p := range h.partitions {
		if p.next < ends[p.partition] {
			missing++
		}
	}
	for missing > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("read the configurations: %w", ctx.Err())
		case msg, ok := <-h.messages:
			if !ok {
				return errors.New("read the configurations: the reader has stopped")
			}
			p, err := h.take(msg)
			msg.Ack()
			if err != nil {
				return err
			}
			if p.next == ends[p.partition] {
				missing--
			}
		}
	}
	return nil
}

// take folds a record.
func (h *history) take(msg *message.Message) (*partitionHistory, error) {
	number := func(name string) (int64, error) {
		n, err := strconv.ParseInt(msg.Metadata.Get(name), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("a record without %s: %w", name, err)
		}
		return n, nil
	}
	partition, err1 := number(oona.MetaPartition)
	offset, err2 := number(oona.MetaOffset)
	appendedAt, err3 := number(oona.MetaTimestamp)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	p := h.partitions[partition]
	if err := p.take(offset, oona.Micros(appendedAt), msg); err != nil {
		return nil, fmt.Errorf("partition %d, offset %d: %w", partition, offset, err)
	}
	return p, nil
}

var errLater = errors.New("the configuration is of a later version of Oona; upgrade this program")

func (p *partitionHistory) take(offset int64, appendedAt oona.Micros, msg *message.Message) error {
	if offset > 0 && p.next == p.start && offset == p.start {
		// The log's beginning is gone, so that this is not its first record.
		p.engine.Fold(windows.Record{Offset: offset - 1, AppendedAt: appendedAt}, nil)
	}
	record := windows.Record{Offset: offset, AppendedAt: appendedAt}
	if kind := msg.Metadata.Get(oona.HeaderRecord); oona.IsConfiguration(kind) {
		if kind != oona.ConfigurationRecord {
			return fmt.Errorf("%w: its kind is %s", errLater, kind)
		}
		said, err := avro.DecodeConfiguration(msg.Payload)
		var c windows.Configuration
		if err == nil {
			c, err = windows.ConfigurationOf(&said)
		}
		switch {
		case err == nil:
			record.Configuration = &c
		case errors.Is(err, avro.ErrUnpublished), errors.Is(err, windows.ErrReducer):
			return fmt.Errorf("%w: %w", errLater, err)
		} // else it is a dead letter
	}
	outcome := p.engine.Fold(record, nil)
	if record.Configuration != nil {
		p.found = append(p.found, foundConfiguration{
			Configuration: *record.Configuration,
			offset:        offset,
			appendedAt:    appendedAt,
			holds:         outcome.Reason == windows.ReasonConfigured,
			says:          outcome.Detail,
		})
	}
	p.appendedAt = max(p.appendedAt, appendedAt)
	p.next = offset + 1
	return nil
}

// writeConfiguration appends a configuration record to partitions.
func writeConfiguration(cfg bus.Config, topic string, partitions []int32, c windows.Configuration) (err error) {
	publisher, err := bus.NewPublisher(cfg, bus.PublisherOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	payload := avro.AppendConfiguration(nil, c.Record())
	messages := make([]*message.Message, len(partitions))
	for i, partition := range partitions {
		messages[i] = message.NewMessage("", payload)
		messages[i].Metadata.Set(oona.HeaderRecord, oona.ConfigurationRecord)
		messages[i].Metadata.Set(oona.MetaToPartition, strconv.Itoa(int(partition)))
	}
	if err := publisher.Publish(topic, messages...); err != nil {
		return fmt.Errorf("write the configuration: some partitions may have it; look with: oona windows show, and take a new generation: %w", err)
	}
	return nil
}
