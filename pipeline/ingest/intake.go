package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona/bus"
)

// intake is what requests and the raw topic share. Frames are decoded into a batch,
// their tensors are stored, and they are published, or there is a refusal. It knows
// nothing of HTTP.
type intake struct {
	cfg       Config
	publisher bus.Publisher
	logger    *slog.Logger
	warnings  throttle
	memory    *budget
	store     storeState
	counts    *frameMetrics
}

func newIntake(cfg Config, publisher bus.Publisher, registerer prometheus.Registerer, logger *slog.Logger) (*intake, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	if cfg.Topic == "" {
		return nil, errors.New("ingest: no topic to publish to")
	}
	in := &intake{
		cfg:       cfg,
		publisher: publisher,
		logger:    logger,
		warnings:  throttle{every: 10 * time.Second},
		memory:    newBudget(cfg.MaxMemoryBytes),
		store:     storeState{failed: make(chan struct{}, 1)},
		counts:    newFrameMetrics(),
	}
	err := in.counts.register(registerer)
	if err == nil && cfg.Tensors != nil {
		err = registerer.Register(in.store.gauge())
	}
	if err != nil {
		return nil, fmt.Errorf("ingest: register metrics: %w", err)
	}
	return in, nil
}

// belowLimit is the warning if the topic's limit is lower than configured here.
const belowLimit = "the bus refuses a record or a batch that is smaller than --max-message-bytes; set that to the max.message.bytes of the topic"

// publishFrames publishes frames together, or one by one if they are too large
// together. It returns a *tooLargeError if single frames are too large.
func (in *intake) publishFrames(ctx context.Context, messages []*message.Message) error {
	err := in.publisher.Publish(ctx, in.cfg.Topic, messages...)
	if !errors.Is(err, bus.ErrTooLarge) {
		return err
	}
	in.warn(belowLimit, "limit", in.cfg.MaxMessageBytes, "err", err)
	refused := &tooLargeError{of: len(messages)}
	for i, m := range messages {
		err := in.publisher.Publish(ctx, in.cfg.Topic, m)
		switch {
		case errors.Is(err, bus.ErrTooLarge):
			refused.frames, refused.why = append(refused.frames, i), err
		case err != nil:
			return err
		}
	}
	if len(refused.frames) > 0 {
		return refused
	}
	return nil
}

// tooLargeError says which frames the bus never accepts. It has the others.
type tooLargeError struct {
	frames []int
	of     int
	why    error
}

func (e *tooLargeError) Error() string {
	return fmt.Sprintf("the bus refused %d of the %d frames as too large, the first of them frame %d, and has the other %d; split its frames by seed ids (%v)",
		len(e.frames), e.of, e.frames[0], e.of-len(e.frames), e.why)
}

func (e *tooLargeError) refusal() *refusal {
	return refuse(reasonTooLarge, "%v", e)
}

// warn logs each text at most once in ten seconds. Texts are constants. What varies is
// in args.
func (in *intake) warn(text string, args ...any) {
	if skipped, ok := in.warnings.allow(text, time.Now()); ok {
		in.logger.Warn(text, append(args, "suppressed", skipped)...)
	}
}
