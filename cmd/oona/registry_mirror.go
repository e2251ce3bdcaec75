package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/pipeline/mirror"
	"github.com/morphogenetic/oona/schemas/registry"
)

type mirrorToRegistry struct {
	Bus      kafka.Config `embed:"" group:"Bus"`
	Group    string       `name:"mirror-group" group:"Bus" placeholder:"NAME" help:"Consumer group of the mirrors. They share the partitions."`
	Topic    []string     `env:"-" placeholder:"TOPIC" help:"Topics to copy. Default: layer.health, layer.performance, and the side topics late, quarantine and overflow."`
	Register bool         `env:"-" help:"Register missing schemas, as oona registry register does."`
	NoCreate bool         `env:"-" help:"Do not create topics. They must exist, with as many partitions as those that are copied."`
}

// Validate is called by kong when flags, environment and file have been read.
func (m *mirrorToRegistry) Validate() error {
	if m.Group == "" {
		return &oona.FieldError{Field: "--mirror-group", Reason: "is empty; give the name of a consumer group"}
	}
	return m.Bus.Security.Check()
}

// Run copies until ctx ends.
func (m *mirrorToRegistry) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	pairs, copies, err := m.pairs(ctx, &c.Registry, logger)
	if err != nil {
		return err
	}
	b := kafka.New(m.Bus, logger)
	if err := m.prepare(ctx, b, pairs, copies, to); err != nil {
		return err
	}
	publisher, err := b.Publisher(bus.PublisherOptions{Compression: "lz4", MaxMessageBytes: oona.MaxRollupBytes + oona.MaxSideBytes})
	if err != nil {
		return err
	}
	stage := mirror.New(pairs, b, publisher, logger)
	members := make(map[string]bus.Member)
	for _, pair := range pairs {
		members[pair.From], err = b.Member(bus.MemberOptions{Group: m.Group, ReadAhead: 1 << 20, ReadAheadAll: 32 << 20}, stage)
		if err != nil {
			delete(members, pair.From)
			break
		}
		fmt.Fprintf(to.messages, "%s -> %s\n", pair.From, pair.To)
	}
	if err == nil {
		err = m.copy(ctx, stage, members, to)
	}
	for _, member := range members {
		err = errors.Join(err, member.Close())
	}
	return errors.Join(err, publisher.Close())
}

// copy runs the stage until ctx ends, and reports meanwhile.
func (m *mirrorToRegistry) copy(ctx context.Context, stage *mirror.Stage, members map[string]bus.Member, to streams) error {
	reported := make(chan struct{})
	reporting, stop := context.WithCancel(ctx)
	go func() {
		defer close(reported)
		m.report(reporting, stage, to)
	}()
	err := stage.Run(ctx, members)
	stop()
	<-reported
	return err
}

// reportEvery is the time between two lines about what was copied.
const reportEvery = time.Minute

// report prints how much was copied, if anything, and once more at the end.
func (m *mirrorToRegistry) report(ctx context.Context, stage *mirror.Stage, to streams) {
	var before [2]int64
	for more := true; more; {
		more = bus.Pause(ctx, reportEvery)
		copied, left := stage.Counts()
		if now := [2]int64{copied, left}; now != before || !more {
			fmt.Fprintf(to.messages, "%d records copied, %d left out\n", copied, left)
			before = now
		}
	}
}

// pairs returns the topics to copy with the ids of their schemas, and the names of the
// topics of the copies.
func (m *mirrorToRegistry) pairs(ctx context.Context, c *registryCommand, logger *slog.Logger) ([]mirror.Pair, oona.Topics, error) {
	from, copies, err := c.topics()
	if err != nil {
		return nil, copies, err
	}
	pairs := mirror.Pairs(from, copies)
	var known []string
	for _, pair := range pairs {
		known = append(known, pair.From)
	}
	for _, topic := range m.Topic {
		if !slices.Contains(known, topic) {
			return nil, copies, &oona.FieldError{Field: "--topic", Reason: fmt.Sprintf("is %.200q, which cannot be copied; give some of %s", topic, strings.Join(known, ", "))}
		}
	}
	if len(m.Topic) > 0 {
		pairs = slices.DeleteFunc(pairs, func(p mirror.Pair) bool { return !slices.Contains(m.Topic, p.From) })
	}
	r, err := registry.Open(c.Registry, nil, logger)
	if err != nil {
		return nil, copies, err
	}
	if err := r.Probe(ctx); err != nil {
		return nil, copies, fmt.Errorf("--registry-url: %w", err)
	}
	for i := range pairs {
		s, err := r.Examine(ctx, registry.Subject(pairs[i].To), pairs[i].Record)
		if err == nil && m.Register {
			err = r.Register(ctx, s)
		}
		if err != nil {
			return nil, copies, err
		}
		if !s.Complete() {
			return nil, copies, fmt.Errorf("%s does not have %s; give --register, or run: oona registry register", s.Subject, missing(s))
		}
		pairs[i].IDs = ids(s)
	}
	return pairs, copies, nil
}

// prepare makes the topics of the copies, with as many partitions as those that are
// copied, or only checks them.
func (m *mirrorToRegistry) prepare(ctx context.Context, b bus.Bus, pairs []mirror.Pair, copies oona.Topics, to streams) error {
	var names []string
	for _, pair := range pairs {
		names = append(names, pair.From)
	}
	extents, err := b.Extents(ctx, names...)
	if err != nil {
		return err
	}
	var specs []oona.TopicSpec
	for _, spec := range copies.Specs(1) {
		for _, pair := range pairs {
			if spec.Name == pair.To {
				spec.Partitions, spec.PartitionsOf = int32(len(extents[pair.From])), "" //nolint:gosec // a number of partitions
				specs = append(specs, spec)
			}
		}
	}
	if m.NoCreate {
		_, err := bus.WithoutLimits(b.Check(ctx, specs))
		return madeElsewhere(err)
	}
	changes, err := b.Apply(ctx, specs)
	for _, change := range changes {
		fmt.Fprintln(to.messages, change)
	}
	return err
}
