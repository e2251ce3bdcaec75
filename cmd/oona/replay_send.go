package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/records"
	"github.com/morphogenetic/oona/schemas/avro"
)

type replaySend struct {
	ToTopic       string   `env:"-" group:"What to do" placeholder:"TOPIC" help:"Send the records to another topic, which must exist: with their keys, headers and times, and with their values unless something is selected. A repeat sends them again."`
	ToBrokers     []string `env:"-" group:"Another topic" placeholder:"HOST:PORT" help:"Brokers of the other topic, if it is on another cluster. Security flags are those of the source."`
	SamePartition bool     `env:"-" group:"Another topic" help:"Send each record to the partition of the number that it was in. Default: its key decides."`
}

// headerReplayedFrom says from where a replay took a record: TOPIC/PARTITION/OFFSET.
const headerReplayedFrom = "oona-replayed-from"

var (
	// errOwnTopic is returned for a topic of Oona without --yes.
	errOwnTopic = errors.New("it belongs to Oona, whose workers or readers would take the records as new ones; give another topic, or --yes if that is meant")
	// errNoTarget is returned for a topic that does not exist.
	errNoTarget = errors.New("the topic does not exist; create it, with the number of partitions and the retention that you need, for example by kafka-topics.sh --create")
	// errSameTopic is returned for a topic that is read, too.
	errSameTopic = errors.New("it is one of the sources; give another topic")
)

// send sends the records to another topic.
func (r *replayRun) send(ctx context.Context, job *replaying, to streams) (err error) {
	target := job.Bus
	if len(r.Send.ToBrokers) > 0 {
		target.Brokers = r.Send.ToBrokers
	}
	elsewhere := len(r.Send.ToBrokers) > 0 && !slices.Equal(r.Send.ToBrokers, job.Bus.Brokers)
	if err := r.Send.check(job, elsewhere, r.Out.Yes); err != nil {
		return fmt.Errorf("--to-topic %s: %w", r.Send.ToTopic, err)
	}
	other := kafka.New(target, job.logger)
	extents, err := other.Extents(ctx, r.Send.ToTopic)
	if errors.Is(err, bus.ErrNoTopic) {
		return fmt.Errorf("--to-topic %s: %w", r.Send.ToTopic, errNoTarget) // oona topics apply would not create it
	}
	if err != nil {
		return err
	}
	publisher, err := other.Publisher(bus.PublisherOptions{MaxMessageBytes: oona.MaxSideBytes, Compression: "lz4"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	output := &sendOutput{replaySend: &r.Send, publisher: publisher, partitions: int32(len(extents[r.Send.ToTopic])), sent: map[string]int64{}, next: map[string]int64{}}
	read, err := r.extract(ctx, job, output)
	if err != nil {
		output.resume(job.messages)
		return err
	}
	return errors.Join(r.printSent(to.out, output), read.nothing)
}

// check returns an error for a topic that cannot be meant.
func (s *replaySend) check(job *replaying, elsewhere, yes bool) error {
	if !elsewhere && job.bus != nil && slices.Contains(job.sources, s.ToTopic) {
		return errSameTopic
	}
	all := slices.Concat(job.topics.Specs(0), job.topics.RawSpecs(0), job.topics.EventSpecs(0))
	own := slices.ContainsFunc(all, func(spec oona.TopicSpec) bool { return spec.Name == s.ToTopic })
	if (own || s.ToTopic == job.topics.Settings) && !yes {
		return errOwnTopic
	}
	return nil
}

func (r *replayRun) printSent(w io.Writer, o *sendOutput) error {
	if r.JSON {
		return writeJSON(w, struct {
			Topic string           `json:"topic"`
			Sent  map[string]int64 `json:"sent"` // by source
		}{r.Send.ToTopic, o.sent})
	}
	for _, source := range slices.Sorted(maps.Keys(o.sent)) {
		fmt.Fprintf(w, "%s: %d records sent to %s\n", source, o.sent[source], r.Send.ToTopic)
	}
	return nil
}

// sendOutput is a replay.Output that sends records to a topic.
type sendOutput struct {
	*replaySend
	publisher  bus.Publisher
	partitions int32            // of the topic
	sent       map[string]int64 // by topic
	next       map[string]int64 // offset up to which all is sent, by topic/partition, of ranges that are not finished
}

// Open begins a range.
func (o *sendOutput) Open(ctx context.Context, topic string, r bus.Range) (replay.Writer, int64, error) {
	if o.SamePartition && r.Partition >= o.partitions {
		return nil, 0, fmt.Errorf("--same-partition: %s has %d partitions, and %s has a partition %d", o.ToTopic, o.partitions, topic, r.Partition)
	}
	w := &sendWriter{sendOutput: o, ctx: ctx, topic: topic, place: fmt.Sprintf("%s --partition %d", topic, r.Partition)}
	o.next[w.place] = r.From
	return w, r.From, nil
}

// resume says how to continue what was interrupted.
func (o *sendOutput) resume(w io.Writer) {
	for _, place := range slices.Sorted(maps.Keys(o.next)) {
		fmt.Fprintf(w, "oona: to continue without sending records again: oona replay %s --from offset:%d --to-topic %s with the other flags as before, and then the partitions and topics after it\n", place, o.next[place], o.ToTopic)
	}
}

// Limits of a batch.
const (
	sendRecords = 512
	sendBytes   = 4 << 20
)

// sendWriter sends the records of a range.
type sendWriter struct {
	*sendOutput
	ctx   context.Context // of the range
	topic string
	place string
	batch []*message.Message
	bytes int
	last  int64 // offset after the last record of the batch
}

// Write adds a record to the batch.
func (w *sendWriter) Write(r *records.Record) error {
	if r.Last() {
		w.last = r.At.Offset + 1
	}
	if !r.Selected || r.Whole && r.Part > 0 { // the whole body was sent already
		return nil
	}
	target := bus.Target{Key: bytes.Clone(r.At.Key), Time: r.At.Appended}
	if w.SamePartition {
		target.Partition, target.Directed = r.At.Partition, true
	}
	msg := bus.NewMessage(w.value(r), target)
	maps.Copy(msg.Metadata, r.Message.Metadata)
	msg.Metadata.Set(headerReplayedFrom, fmt.Sprintf("%s/%d/%d", r.At.Topic, r.At.Partition, r.At.Offset))
	w.batch = append(w.batch, msg)
	w.bytes += len(msg.Payload)
	if len(w.batch) < sendRecords && w.bytes < sendBytes {
		return nil
	}
	return w.flush()
}

// value returns what is left of a record.
func (w *sendWriter) value(r *records.Record) []byte {
	switch {
	case r.Whole:
		return bytes.Clone(r.Body.Payload)
	case r.Narrowed && r.Frame != nil:
		return avro.AppendFrame(nil, r.Frame)
	case r.Narrowed && r.Rollup != nil:
		return avro.AppendRollup(nil, r.Rollup)
	}
	return bytes.Clone(r.Message.Payload)
}

// flush sends the batch.
func (w *sendWriter) flush() error {
	if len(w.batch) > 0 {
		if err := w.publisher.Publish(w.ctx, w.ToTopic, w.batch...); err != nil {
			return fmt.Errorf("send to %s: %w", w.ToTopic, err)
		}
	}
	w.sent[w.topic] += int64(len(w.batch))
	w.next[w.place] = max(w.next[w.place], w.last)
	w.batch, w.bytes = w.batch[:0], 0
	return nil
}

// Close sends the rest.
func (w *sendWriter) Close(int64) error {
	if err := w.flush(); err != nil {
		return err
	}
	delete(w.next, w.place)
	return nil
}

// Abort forgets the batch.
func (w *sendWriter) Abort() error { return nil }
