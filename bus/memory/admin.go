package memory

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// defaultMaxMessage is the limit of a topic whose spec has none.
const defaultMaxMessage = 1 << 20

// Apply implements bus.Admin.
func (b *Bus) Apply(_ context.Context, specs []oona.TopicSpec) (changes []bus.TopicChange, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, spec := range specs {
		if spec.Partitions < 1 {
			return nil, &oona.FieldError{Field: "partitions", Reason: fmt.Sprintf("of %s is %d; give at least 1", spec.Name, spec.Partitions)}
		}
	}
	var wrong []bus.TopicFault
	for _, spec := range specs {
		if b.topics[spec.Name] == nil {
			t := &topic{name: spec.Name}
			t.grow(spec.Partitions)
			t.correct(spec)
			b.topics[spec.Name] = t
			changes = append(changes, bus.TopicChange{Topic: spec.Name, What: fmt.Sprintf("created, partitions: %d", spec.Partitions)})
			continue
		}
		for _, f := range b.faults(spec) {
			switch f.Kind {
			case bus.FaultSetting, bus.FaultSize, bus.FaultLimit:
				changes = append(changes, bus.TopicChange{Topic: spec.Name, What: "corrected: it " + f.Fault})
			case bus.FaultPartitions:
				wrong = append(wrong, f)
			}
		}
		b.topics[spec.Name].correct(spec)
	}
	if len(wrong) > 0 {
		return changes, &bus.TopicsError{Faults: wrong}
	}
	return changes, nil
}

// Check implements bus.Admin.
func (b *Bus) Check(_ context.Context, specs []oona.TopicSpec) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var wrong []bus.TopicFault
	for _, spec := range specs {
		wrong = append(wrong, b.faults(spec)...)
	}
	if len(wrong) > 0 {
		return &bus.TopicsError{Faults: wrong}
	}
	return nil
}

// faults returns the differences between a topic and its spec.
func (b *Bus) faults(spec oona.TopicSpec) (all []bus.TopicFault) {
	fault := func(kind bus.FaultKind, format string, args ...any) {
		all = append(all, bus.TopicFault{Topic: spec.Name, Kind: kind, Fault: fmt.Sprintf(format, args...)})
	}
	t := b.topics[spec.Name]
	if t == nil {
		fault(bus.FaultMissing, "does not exist")
		return all
	}
	has := len(t.partitions)
	if spec.Partitions > 0 && !spec.AnyPartitions && has != int(spec.Partitions) {
		all = append(all, bus.WrongPartitions(spec.Name, has, int(spec.Partitions)))
	}
	if like := b.topics[spec.PartitionsOf]; like != nil && len(like.partitions) != has {
		all = append(all, bus.UnequalPartitions(spec.Name, has, spec.PartitionsOf, len(like.partitions)))
	}
	if t.compacted != spec.Compacted {
		fault(bus.FaultSetting, "must be compacted: %t", spec.Compacted)
	}
	if spec.AppendTime && !t.appendTime {
		fault(bus.FaultSetting, "has the writers' times")
	}
	if spec.MaxMessageBytes > 0 && t.maxBytes != spec.MaxMessageBytes {
		fault(bus.FaultLimit, "takes %d bytes and must take %d", t.maxBytes, spec.MaxMessageBytes)
	}
	if t.maxBytes < spec.LeastMessageBytes {
		fault(bus.FaultSize, "takes %d bytes and must take at least %d", t.maxBytes, spec.LeastMessageBytes)
	}
	return all
}

// correct gives a topic the settings of its spec.
func (t *topic) correct(spec oona.TopicSpec) {
	t.compacted = spec.Compacted
	t.appendTime = t.appendTime || spec.AppendTime
	if t.maxBytes == 0 {
		t.maxBytes = defaultMaxMessage
	}
	if spec.MaxMessageBytes > 0 {
		t.maxBytes = spec.MaxMessageBytes
	}
	t.maxBytes = max(t.maxBytes, spec.LeastMessageBytes)
}

// Extents implements bus.Admin.
func (b *Bus) Extents(_ context.Context, topics ...string) (map[string][]bus.Extent, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	extents := make(map[string][]bus.Extent, len(topics))
	for _, name := range topics {
		t, err := b.topic(name)
		if err != nil {
			return nil, err
		}
		for _, p := range t.partitions {
			extents[name] = append(extents[name], bus.Extent{Start: p.start, End: p.end()})
		}
	}
	return extents, nil
}

// Commits implements bus.Admin.
func (b *Bus) Commits(_ context.Context, group, topic string) ([]bus.Commit, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.topic(topic)
	if err != nil {
		return nil, err
	}
	commits := make([]bus.Commit, len(t.partitions))
	for i := range commits {
		commits[i] = b.group(group).committed(place{topic, int32(i)})
	}
	return commits, nil
}

// Retention implements bus.Admin.
func (b *Bus) Retention(_ context.Context, topic string) (bus.Retention, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.topic(topic)
	if err != nil {
		return bus.Retention{}, err
	}
	return t.retention, nil
}

// Read implements bus.Admin.
func (b *Bus) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	records, err := b.copy(topic, r)
	if err != nil {
		return err
	}
	at := bus.Position{Topic: topic, Partition: r.Partition}
	for _, record := range records {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read %s/%d: %w", topic, r.Partition, err)
		}
		if err := take(record.message(ctx, at)); err != nil {
			return fmt.Errorf("%s/%d, offset %d: %w", topic, r.Partition, record.offset, err)
		}
	}
	return nil
}

// copy returns the records of a range that a partition holds now.
func (b *Bus) copy(topic string, r bus.Range) ([]record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.partition(topic, r.Partition)
	if err != nil {
		return nil, err
	}
	from, end := max(r.From, p.start), min(r.End, p.end())
	if from >= end {
		return nil, nil
	}
	return slices.Clone(p.records[from-p.start : end-p.start]), nil
}

// message returns the record as a message that was read. at is its position without
// offset, time and key.
func (r record) message(ctx context.Context, at bus.Position) *message.Message {
	at.Offset, at.Appended, at.Key = r.offset, r.appended, bytes.Clone(r.key)
	msg := message.NewMessage("", bytes.Clone(r.payload))
	maps.Copy(msg.Metadata, r.headers)
	msg.SetContext(bus.WithPosition(ctx, at))
	return msg
}
