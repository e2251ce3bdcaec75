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

const retentionSetting = "retention.ms"

// Retention implements bus.Admin. It does not look at retention.bytes.
func (b *Bus) Retention(ctx context.Context, topic string) (time.Duration, error) {
	a, err := openAdmin(b.cfg)
	if err != nil {
		return 0, err
	}
	views, err := a.look(ctx, []oona.TopicSpec{{Name: topic}})
	if err = errors.Join(err, a.Close()); err != nil {
		return 0, err
	}
	for _, v := range views {
		if v.err == nil && v.topics[topic] != nil {
			return parseRetention(topic, v.settings[topic][retentionSetting])
		}
		err = errors.Join(err, v.err)
	}
	if err != nil {
		return 0, fmt.Errorf("find the retention of %s: %w", topic, refusedAccess(err))
	}
	return 0, fmt.Errorf("find the retention of %s: %w", topic, bus.ErrNoTopic)
}

func parseRetention(topic, value string) (time.Duration, error) {
	millis, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s of %s: %w", retentionSetting, topic, err)
	}
	if millis < 0 || millis > math.MaxInt64/int64(time.Millisecond) {
		return 0, nil
	}
	return time.Duration(millis) * time.Millisecond, nil
}
