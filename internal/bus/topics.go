package bus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona"
)

// TopicChange is one thing that ApplyTopics did.
type TopicChange struct {
	Topic string
	What  string
}

func (c TopicChange) String() string { return c.Topic + ": " + c.What }

// TopicsError lists all that is wrong with topics.
type TopicsError struct{ Faults []TopicFault }

// TopicFault is one thing that is wrong with a topic, and how to mend it.
type TopicFault struct {
	Topic  string
	Fault  string
	Remedy string
}

func (e *TopicsError) Error() string {
	var b strings.Builder
	b.WriteString("topics are not as they must be:")
	for _, f := range e.Faults {
		fmt.Fprintf(&b, "\n  %s %s; %s", f.Topic, f.Fault, f.Remedy)
	}
	return b.String()
}

const (
	// replicas and inSync are of topics in a cluster with enough brokers.
	replicas = 3
	inSync   = 2
	// leaderWait bounds the wait for leaders of new topics.
	leaderWait = 30 * time.Second

	applyIt = "run `oona topics apply`"
)

// ApplyTopics makes the topics that are missing and mends the configuration of
// the others: append times where the spec asks for them, the clean-up policy
// (deletion only, or compaction only), and with three brokers or more a
// replication of 3 of which 2 must be in sync. It returns when all have leaders.
//
// Numbers of partitions and replicas are never changed: they are reported in a
// *TopicsError, after everything else was done. The changes are returned with
// every error.
func ApplyTopics(ctx context.Context, cfg Config, specs []oona.TopicSpec) ([]TopicChange, error) {
	for _, spec := range specs {
		if spec.Partitions < 1 {
			return nil, &oona.FieldError{Field: "partitions", Reason: fmt.Sprintf("of %s is %d; give at least 1", spec.Name, spec.Partitions)}
		}
	}
	a, err := openAdmin(cfg)
	if err != nil {
		return nil, err
	}
	changes, err := a.apply(ctx, specs)
	return changes, errors.Join(err, a.Close())
}

// CheckTopics returns a *TopicsError that lists all that is wrong with the
// topics, or another error where they cannot be looked at. A spec without a
// number of partitions takes any.
func CheckTopics(ctx context.Context, cfg Config, specs []oona.TopicSpec) error {
	a, err := openAdmin(cfg)
	if err != nil {
		return err
	}
	faults, err := a.check(ctx, specs)
	if err == nil && len(faults) > 0 {
		err = &TopicsError{faults}
	}
	return errors.Join(err, a.Close())
}

// Retention returns how long a topic keeps a record, 0 where that is for ever.
// What it deletes by size (retention.bytes) is not in it.
func Retention(cfg Config, topic string) (time.Duration, error) {
	a, err := openAdmin(cfg)
	if err != nil {
		return 0, err
	}
	entries, err := describeTopic(a, topic, retentionSetting)
	if err = errors.Join(err, a.Close()); err != nil {
		return 0, err
	}
	i := slices.IndexFunc(entries, func(e sarama.ConfigEntry) bool { return e.Name == retentionSetting })
	if i < 0 {
		return 0, fmt.Errorf("look at the configuration of %s: the broker's answer leaves %s out", topic, retentionSetting)
	}
	millis, err := strconv.ParseInt(entries[i].Value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s of %s: %w", retentionSetting, topic, err)
	}
	if millis < 0 || millis > math.MaxInt64/int64(time.Millisecond) {
		return 0, nil
	}
	return time.Duration(millis) * time.Millisecond, nil
}

const retentionSetting = "retention.ms"

// topicAdmin is a connection for administration.
type topicAdmin struct {
	sarama.ClusterAdmin
	replication int16 // of new topics
}

func openAdmin(cfg Config) (*topicAdmin, error) {
	client, err := connect(cfg, cfg.client())
	if err != nil {
		return nil, err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("administer topics: %w", err), client.Close())
	}
	brokers, _, err := admin.DescribeCluster()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("count the brokers: %w", err), admin.Close())
	}
	a := &topicAdmin{ClusterAdmin: admin, replication: 1}
	if len(brokers) >= replicas {
		a.replication = replicas
	}
	return a, nil
}

func (a *topicAdmin) apply(ctx context.Context, specs []oona.TopicSpec) (changes []TopicChange, err error) {
	found, err := a.find(ctx, specs)
	if err != nil {
		return nil, err
	}
	var faults []TopicFault
	for _, spec := range specs {
		if err := ctx.Err(); err != nil {
			return changes, fmt.Errorf("apply topics: %w", err)
		}
		var done []TopicChange
		if topic := found[spec.Name]; topic == nil {
			done, err = a.create(spec)
		} else {
			faults = append(faults, a.shapeFaults(spec, topic)...)
			done, err = a.configure(spec)
		}
		changes = append(changes, done...)
		if err != nil {
			return changes, err
		}
	}
	if err := a.awaitLeaders(ctx, specs); err != nil {
		return changes, err
	}
	if len(faults) > 0 {
		return changes, &TopicsError{faults}
	}
	return changes, nil
}

func (a *topicAdmin) check(ctx context.Context, specs []oona.TopicSpec) (faults []TopicFault, err error) {
	found, err := a.find(ctx, specs)
	if err != nil {
		return nil, err
	}
	for _, spec := range specs {
		topic := found[spec.Name]
		if topic == nil {
			faults = append(faults, TopicFault{spec.Name, "does not exist", applyIt})
			continue
		}
		faults = append(faults, a.shapeFaults(spec, topic)...)
		if like := found[spec.PartitionsOf]; like != nil && len(like.Partitions) != len(topic.Partitions) {
			faults = append(faults, TopicFault{
				spec.Name,
				fmt.Sprintf("has %d partitions and %s has %d: what comes of partition p goes to partition p", len(topic.Partitions), spec.PartitionsOf, len(like.Partitions)),
				"begin with new topics (--prefix), or delete this one if nobody needs it and run: oona topics apply",
			})
		}
		settings, err := a.wrongSettings(spec)
		if err != nil {
			return nil, err
		}
		for _, s := range settings {
			faults = append(faults, TopicFault{spec.Name, fmt.Sprintf("has %s=%s and must have %s", s.name, s.is, s.must), applyIt})
		}
	}
	return faults, nil
}

// find returns those of the topics that exist.
func (a *topicAdmin) find(ctx context.Context, specs []oona.TopicSpec) (map[string]*sarama.TopicMetadata, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("look at topics: %w", err)
	}
	names := make([]string, len(specs))
	for i, spec := range specs {
		names[i] = spec.Name
	}
	topics, err := a.DescribeTopics(names)
	if err != nil {
		return nil, fmt.Errorf("look at topics: %w", err)
	}
	found := make(map[string]*sarama.TopicMetadata, len(topics))
	for _, topic := range topics {
		switch {
		case errors.Is(topic.Err, sarama.ErrUnknownTopicOrPartition):
		case errors.Is(topic.Err, sarama.ErrNoError), errors.Is(topic.Err, sarama.ErrLeaderNotAvailable):
			found[topic.Name] = topic
		default:
			return nil, fmt.Errorf("look at topic %s: %w", topic.Name, topic.Err)
		}
	}
	return found, nil
}

// shapeFaults are those that only people can mend.
func (a *topicAdmin) shapeFaults(spec oona.TopicSpec, topic *sarama.TopicMetadata) (faults []TopicFault) {
	if has := len(topic.Partitions); spec.Partitions > 0 && has != int(spec.Partitions) {
		faults = append(faults, TopicFault{
			spec.Name,
			fmt.Sprintf("has %d partitions and must have %d", has, spec.Partitions),
			fmt.Sprintf("name the number it has (--partitions %d), or begin with new topics (--prefix): a change would send keys to other partitions, and Oona never makes it", has),
		})
	}
	fewest := len(topic.Partitions[0].Replicas)
	for _, p := range topic.Partitions {
		fewest = min(fewest, len(p.Replicas))
	}
	if fewest < int(a.replication) {
		faults = append(faults, TopicFault{
			spec.Name,
			fmt.Sprintf("has %d replicas and must have %d", fewest, a.replication),
			"add replicas with kafka-reassign-partitions.sh",
		})
	}
	return faults
}

// setting is a configuration of a topic that is not as it must be.
type setting struct{ name, is, must string }

// settings are the configurations that Oona depends on; all others are left
// alone.
func (a *topicAdmin) settings(spec oona.TopicSpec) []setting {
	s := []setting{{name: "cleanup.policy", must: "delete"}}
	if spec.Compacted {
		s[0].must = "compact"
	}
	if spec.AppendTime {
		s = append(s, setting{name: "message.timestamp.type", must: "LogAppendTime"})
	}
	if spec.MaxMessageBytes > 0 {
		s = append(s, setting{name: "max.message.bytes", must: strconv.Itoa(spec.MaxMessageBytes)})
	}
	if a.replication >= replicas {
		s = append(s, setting{name: "min.insync.replicas", must: strconv.Itoa(inSync)})
	}
	return s
}

func (a *topicAdmin) wrongSettings(spec oona.TopicSpec) (wrong []setting, err error) {
	must := a.settings(spec)
	names := make([]string, len(must))
	for i, s := range must {
		names[i] = s.name
	}
	entries, err := describeTopic(a, spec.Name, names...)
	if err != nil {
		return nil, err
	}
	for _, s := range must {
		if i := slices.IndexFunc(entries, func(e sarama.ConfigEntry) bool { return e.Name == s.name }); i >= 0 {
			s.is = entries[i].Value
		}
		if s.is != s.must {
			wrong = append(wrong, s)
		}
	}
	return wrong, nil
}

// describeTopic returns the named settings of a topic.
func describeTopic(admin sarama.ClusterAdmin, topic string, names ...string) ([]sarama.ConfigEntry, error) {
	resource := &sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: names}
	results, err := admin.DescribeConfigs([]*sarama.ConfigResource{resource}, sarama.DescribeConfigsOptions{})
	if err != nil {
		return nil, fmt.Errorf("look at the configuration of %s: %w", topic, err)
	}
	for _, r := range results {
		if r.Name != topic {
			continue
		}
		if r.ErrorCode != sarama.ErrNoError {
			return nil, fmt.Errorf("look at the configuration of %s: %w", topic, &sarama.DescribeConfigError{Err: r.ErrorCode, ErrMsg: r.ErrorMsg})
		}
		return r.Configs, nil
	}
	return nil, fmt.Errorf("look at the configuration of %s: the broker's answer leaves it out", topic)
}

func (a *topicAdmin) create(spec oona.TopicSpec) ([]TopicChange, error) {
	entries := make(map[string]*string)
	for _, s := range a.settings(spec) {
		entries[s.name] = &s.must
	}
	err := a.CreateTopic(spec.Name, &sarama.TopicDetail{NumPartitions: spec.Partitions, ReplicationFactor: a.replication, ConfigEntries: entries}, false)
	if errors.Is(err, sarama.ErrTopicAlreadyExists) { // someone else applies too
		return a.configure(spec)
	}
	if err != nil {
		return nil, fmt.Errorf("make topic %s: %w", spec.Name, err)
	}
	return []TopicChange{{spec.Name, fmt.Sprintf("made with %d partitions, replication %d", spec.Partitions, a.replication)}}, nil
}

func (a *topicAdmin) configure(spec oona.TopicSpec) (changes []TopicChange, err error) {
	wrong, err := a.wrongSettings(spec)
	if err != nil || len(wrong) == 0 {
		return nil, err
	}
	entries := make(map[string]sarama.IncrementalAlterConfigsEntry, len(wrong))
	for _, s := range wrong {
		entries[s.name] = sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &s.must}
		changes = append(changes, TopicChange{spec.Name, fmt.Sprintf("%s was %s, is %s now", s.name, s.is, s.must)})
	}
	if err := a.IncrementalAlterConfig(sarama.TopicResource, spec.Name, entries, false); err != nil {
		return nil, fmt.Errorf("configure topic %s: %w", spec.Name, err)
	}
	return changes, nil
}

// awaitLeaders waits until every partition has a leader: records could not be
// published before.
func (a *topicAdmin) awaitLeaders(ctx context.Context, specs []oona.TopicSpec) error {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	for {
		found, err := a.find(ctx, specs)
		if err != nil {
			return err
		}
		missing := slices.IndexFunc(specs, func(spec oona.TopicSpec) bool { return !led(found[spec.Name]) })
		if missing < 0 {
			return nil
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return fmt.Errorf("topic %s has partitions without a leader: %w", specs[missing].Name, ctx.Err())
		}
	}
}

func led(topic *sarama.TopicMetadata) bool {
	return topic != nil && !slices.ContainsFunc(topic.Partitions, func(p *sarama.PartitionMetadata) bool { return p.Leader < 0 })
}
