package settings

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/windows"
)

// ErrNoLimits is returned if the settings topic does not have a configuration of each
// partition of seed-metrics.
var ErrNoLimits = errors.New("the limits of frames are not known")

// ReadLimits returns the limits of frames that go to seed-metrics. They are those of the
// configurations in the settings topic. The error wraps ErrNoLimits if a partition has none.
func ReadLimits(ctx context.Context, b bus.Bus, topics oona.Topics) (*windows.Limits, error) {
	extents, err := b.Extents(ctx, topics.SeedMetrics)
	if err != nil {
		return nil, fmt.Errorf("find the number of partitions: %w", err)
	}
	s, err := Read(ctx, b, topics, slog.New(slog.DiscardHandler)) // no log, because aggregators already log values that cannot be read
	if err != nil {
		return nil, err
	}
	return s.limits(len(extents[topics.SeedMetrics]))
}

func (s *Settings) limits(partitions int) (*windows.Limits, error) {
	all := make([][]windows.Configuration, partitions)
	for i := range all {
		written := s.written[int32(i)]
		if len(written) == 0 {
			return nil, fmt.Errorf("%w: %s has no configuration of partition %d; if the log has one, oona windows show --restore writes it there, and otherwise oona windows apply writes one", ErrNoLimits, s.topic, i)
		}
		for _, w := range written {
			c, err := windows.ConfigurationOf(&w)
			if err != nil {
				return nil, fmt.Errorf("%w: the configuration of partition %d in %s, generation %d: %w", ErrNoLimits, i, s.topic, w.Generation, err)
			}
			all[i] = append(all[i], c)
		}
	}
	return windows.NewLimits(all), nil
}

// FollowLimits calls set with the limits of frames, now and whenever they may have changed, until
// ctx ends. A configuration is written before frames of its time arrive, so it is not necessary to
// read the topic often. After an error, the last limits stay in use.
func FollowLimits(ctx context.Context, b bus.Bus, topics oona.Topics, logger *slog.Logger, set func(*windows.Limits)) {
	const again, soon = 20 * time.Second, 5 * time.Second
	known, said := false, 0 // said is the kind of error that was logged last
	for {
		l, err := ReadLimits(ctx, b, topics)
		kind := 0
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrNoLimits):
			kind, known = 1, false
			set(nil)
		case err != nil:
			kind = 2
		default:
			if !known {
				logger.Info("frames are compared with the limits of the windows", "topic", topics.Settings)
			}
			known = true
			set(l)
		}
		if kind != 0 && kind != said {
			logger.Warn("the limits of the windows cannot be read; unless they were read before, clients are not told which frames will be put aside",
				"topic", topics.Settings, "read_before", known, "err", err)
		}
		said = kind
		pause := again
		if !known {
			pause = soon
		}
		if !bus.Pause(ctx, pause) {
			return
		}
	}
}
