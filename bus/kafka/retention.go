package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

const (
	ageSetting   = "retention.ms"
	bytesSetting = "retention.bytes"
)

// Retention implements bus.Admin.
func (b *Bus) Retention(ctx context.Context, topic string) (bus.Retention, error) {
	a, err := openAdmin(b.cfg)
	if err != nil {
		return bus.Retention{}, err
	}
	views, err := a.look(ctx, []oona.TopicSpec{{Name: topic}})
	if err = errors.Join(err, a.Close()); err != nil {
		return bus.Retention{}, err
	}
	for _, v := range views {
		if v.err == nil && v.topics[topic] != nil {
			return parseRetention(topic, v.settings[topic])
		}
		err = errors.Join(err, v.err)
	}
	if err != nil {
		return bus.Retention{}, fmt.Errorf("find the retention of %s: %w", topic, refusedAccess(err))
	}
	return bus.Retention{}, fmt.Errorf("find the retention of %s: %w", topic, bus.ErrNoTopic)
}

func parseRetention(topic string, settings map[string]string) (r bus.Retention, err error) {
	millis, err := strconv.ParseInt(settings[ageSetting], 10, 64)
	if err != nil {
		return r, fmt.Errorf("%s of %s: %w", ageSetting, topic, err)
	}
	if r.Bytes, err = strconv.ParseInt(settings[bytesSetting], 10, 64); err != nil {
		return r, fmt.Errorf("%s of %s: %w", bytesSetting, topic, err)
	}
	r.Bytes = max(0, r.Bytes)
	if millis > 0 && millis <= math.MaxInt64/int64(time.Millisecond) {
		r.Age = time.Duration(millis) * time.Millisecond
	}
	return r, nil
}
