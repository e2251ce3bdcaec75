package kafka

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/IBM/sarama"
)

// Retention returns how long a topic keeps a record, 0 where that is for ever.
// What it deletes by size (retention.bytes) is not in it.
func Retention(cfg Config, topic string) (time.Duration, error) {
	a, err := openAdmin(cfg)
	if err != nil {
		return 0, err
	}
	value, err := describeSetting(a, topic, retentionSetting)
	if err = errors.Join(noTopic(err), a.Close()); err != nil {
		return 0, err
	}
	millis, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s of %s: %w", retentionSetting, topic, err)
	}
	if millis < 0 || millis > math.MaxInt64/int64(time.Millisecond) {
		return 0, nil
	}
	return time.Duration(millis) * time.Millisecond, nil
}

const retentionSetting = "retention.ms"

// describeSetting returns what some broker knows of a topic's setting.
func describeSetting(admin sarama.ClusterAdmin, topic, name string) (string, error) {
	resource := &sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{name}}
	results, err := admin.DescribeConfigs([]*sarama.ConfigResource{resource}, sarama.DescribeConfigsOptions{})
	if err != nil {
		return "", fmt.Errorf("look at the configuration of %s: %w", topic, err)
	}
	for _, r := range results {
		if r.ErrorCode != sarama.ErrNoError {
			return "", fmt.Errorf("look at the configuration of %s: %w", topic, &sarama.DescribeConfigError{Err: r.ErrorCode, ErrMsg: r.ErrorMsg})
		}
		for _, e := range r.Configs {
			if e.Name == name {
				return e.Value, nil
			}
		}
	}
	return "", fmt.Errorf("look at the configuration of %s: the broker's answer leaves %s out", topic, name)
}
