package kafka

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// Bus is a bus.Bus. It keeps no connection: what it makes, and each call of its
// other methods, connects by itself.
type Bus struct {
	cfg    Config
	logger *slog.Logger
}

// New returns a bus. Its methods validate the configuration. The logger is for members
// and readers; with nil they log nothing.
func New(cfg Config, logger *slog.Logger) *Bus {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Bus{cfg, logger}
}

// Publisher returns a *Publisher.
func (b *Bus) Publisher(opts bus.PublisherOptions) (bus.PinnedPublisher, error) {
	p, err := NewPublisher(b.cfg, opts)
	if err != nil {
		return nil, err // and not an interface that holds a nil *Publisher
	}
	return p, nil
}

// Member returns a *Member.
func (b *Bus) Member(opts bus.MemberOptions, owner bus.Owner) (bus.Member, error) {
	m, err := NewMember(b.cfg, opts, owner, b.logger)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Reader returns a *Reader.
func (b *Bus) Reader(opts bus.ReaderOptions) (bus.Reader, error) {
	r, err := NewReader(b.cfg, opts, b.logger)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Apply is that of bus.Admin.
func (b *Bus) Apply(ctx context.Context, specs []oona.TopicSpec) ([]bus.TopicChange, error) {
	return ApplyTopics(ctx, b.cfg, specs)
}

// Check is that of bus.Admin.
func (b *Bus) Check(ctx context.Context, specs []oona.TopicSpec) error {
	return CheckTopics(ctx, b.cfg, specs)
}

// Extents is that of bus.Admin. The beginning is asked for first, so that it is not
// above the end.
func (b *Bus) Extents(ctx context.Context, topics ...string) (_ map[string][]bus.Extent, err error) {
	client, err := connect(b.cfg, b.cfg.client())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	starts, err := offsetsOf(ctx, b.cfg, client, sarama.OffsetOldest, topics...)
	if err != nil {
		return nil, err
	}
	ends, err := offsetsOf(ctx, b.cfg, client, sarama.OffsetNewest, topics...)
	if err != nil {
		return nil, err
	}
	extents := make(map[string][]bus.Extent, len(topics))
	for topic, of := range starts { // partitions that were added since have no beginning here
		extents[topic] = make([]bus.Extent, len(of))
		for p, start := range of {
			extents[topic][p] = bus.Extent{Start: start, End: ends[topic][p]}
		}
	}
	return extents, nil
}

// Commits is that of bus.Admin.
func (b *Bus) Commits(ctx context.Context, group, topic string) ([]bus.Commit, error) {
	found, err := Commits(ctx, b.cfg, group, topic)
	if err != nil {
		return nil, err
	}
	commits := make([]bus.Commit, len(found))
	for p, c := range found {
		commits[p] = c
	}
	return commits, nil
}

// Retention is that of bus.Admin. It does not know retention.bytes.
func (b *Bus) Retention(ctx context.Context, topic string) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return Retention(b.cfg, topic)
}

// Read is that of bus.Admin.
func (b *Bus) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	return withFetcher(ctx, b.cfg, topic, r.Partition, func(f *fetcher, oldest, end int64) error {
		return f.read(ctx, max(r.From, oldest), min(r.End, end), take)
	})
}

// For callers of before the port.
type (
	PublisherOptions = bus.PublisherOptions
	MemberOptions    = bus.MemberOptions
	ReaderOptions    = bus.ReaderOptions
	TopicsError      = bus.TopicsError
	PartitionsError  = bus.PartitionsError
	PublishError     = bus.PublishError
)

// RollupOptions is that of package bus.
func RollupOptions() PublisherOptions { return bus.RollupOptions() }
