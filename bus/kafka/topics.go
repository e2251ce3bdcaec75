package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

const (
	// replicas and inSync are the settings of topics in a cluster with enough brokers.
	replicas = 3
	inSync   = 2
	// applyWait is how long Apply waits until all brokers know the topics.
	applyWait = time.Minute
	lookPause = 100 * time.Millisecond
)

// Apply implements bus.Admin. It also corrects the clean-up policy (deletion only, or
// compaction only), and in a cluster of three brokers or more it creates topics with
// three replicas and requires two in-sync replicas. Like numbers of partitions, it never
// changes numbers of replicas. It returns when every broker knows the topics and the
// leader of each partition answers.
func (b *Bus) Apply(ctx context.Context, specs []oona.TopicSpec) ([]bus.TopicChange, error) {
	for _, spec := range specs {
		if spec.Partitions < 1 {
			return nil, &oona.FieldError{Field: "partitions", Reason: fmt.Sprintf("of %s is %d; give at least 1", spec.Name, spec.Partitions)}
		}
	}
	a, err := openAdmin(b.cfg)
	if err != nil {
		return nil, err
	}
	changes, err := a.apply(ctx, specs)
	return changes, errors.Join(err, a.Close())
}

// Check implements bus.Admin. A broker learns of a change some time after it was made,
// so Check asks all brokers, and asks them again for a few seconds while any of them
// reports a fault. In the end it reports the faults that all brokers report.
func (b *Bus) Check(ctx context.Context, specs []oona.TopicSpec) error {
	a, err := openAdmin(b.cfg)
	if err != nil {
		return err
	}
	faults, err := a.check(ctx, specs)
	if err == nil && len(faults) > 0 {
		err = &bus.TopicsError{Faults: faults}
	}
	return errors.Join(err, a.Close())
}

// topicAdmin is a connection for administration.
type topicAdmin struct {
	sarama.ClusterAdmin
	cfg     Config
	client  sarama.Client    // closed by ClusterAdmin.Close
	brokers map[int32]string // addresses, by broker id
	most    int              // the highest number of brokers that was seen
}

func openAdmin(cfg Config) (*topicAdmin, error) {
	client, err := connect(cfg, cfg.client())
	if err != nil {
		return nil, err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("administer topics: %w", refusedAccess(err)), client.Close())
	}
	a := &topicAdmin{ClusterAdmin: admin, cfg: cfg, client: client, brokers: make(map[int32]string)}
	for _, b := range client.Brokers() {
		a.brokers[b.ID()] = b.Addr()
	}
	a.most = len(a.brokers)
	return a, nil
}

// replication returns the number of replicas that a topic must have.
func (a *topicAdmin) replication() int16 {
	if a.most >= replicas {
		return replicas
	}
	return 1
}

func (a *topicAdmin) apply(ctx context.Context, specs []oona.TopicSpec) (changes []bus.TopicChange, err error) {
	if len(specs) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, applyWait+a.cfg.Patience)
	defer cancel()
	corrected := make(map[string]bool) // "topic setting" that was corrected, although brokers may not know yet
	var last error                     // error of the last round, unless it is the timeout
	for first := true; ; {
		views, err := a.look(ctx, specs)
		if err != nil {
			return changes, errors.Join(err, last)
		}
		done, unsettled := a.correctAll(specs, views, corrected, first)
		changes = append(changes, done...)
		if refused(unsettled) {
			return changes, refusedAccess(unsettled)
		}
		if unsettled == nil {
			first = false
			unsettled = a.unsettled(ctx, specs, views)
		}
		if unsettled = refusedAccess(unsettled); errors.Is(unsettled, bus.ErrDenied) {
			return changes, unsettled
		}
		if unsettled == nil {
			return changes, a.shapeError(specs, views[0])
		}
		if ctx.Err() == nil || last == nil {
			last = unsettled
		}
		if !bus.Pause(ctx, lookPause) {
			return changes, fmt.Errorf("not all brokers know the topics after %s; check that all brokers answer, and run the same command again: %w: %w", applyWait, last, ctx.Err())
		}
	}
}

// refused returns true if the cluster has refused a request, and the reason is not that a broker
// cannot be reached at the moment.
func refused(err error) bool {
	var answer sarama.KError
	return errors.As(err, &answer) && answer != sarama.ErrNotController && answer != sarama.ErrRequestTimedOut
}

func (a *topicAdmin) correctAll(specs []oona.TopicSpec, views []view, corrected map[string]bool, first bool) (changes []bus.TopicChange, err error) {
	for _, spec := range specs {
		done, err := a.correct(spec, views, corrected, first)
		changes = append(changes, done...)
		if err != nil {
			if _, refreshErr := a.client.RefreshController(); refreshErr != nil {
				err = errors.Join(err, refreshErr)
			}
			return changes, err
		}
	}
	return changes, nil
}

// correct creates a topic that a broker does not know, and corrects settings that are wrong
// according to any broker. In the first round it tries to create every topic, because only the
// controller knows which topics exist: other brokers may not know yet that a topic was deleted.
func (a *topicAdmin) correct(spec oona.TopicSpec, views []view, corrected map[string]bool, first bool) ([]bus.TopicChange, error) {
	known := slices.ContainsFunc(views, func(v view) bool { return v.topics[spec.Name] != nil })
	unknown := slices.ContainsFunc(views, func(v view) bool { return v.err == nil && v.topics[spec.Name] == nil })
	if first || unknown {
		made, err := a.create(spec, known)
		if err != nil || len(made) > 0 {
			return made, err
		}
	}
	var wrong []setting
	for _, v := range views {
		if v.topics[spec.Name] == nil {
			continue
		}
		for _, s := range a.wrongSettings(spec, v) {
			if key := spec.Name + " " + s.name; !corrected[key] {
				corrected[key] = true
				wrong = append(wrong, s)
			}
		}
	}
	return a.configure(spec.Name, wrong)
}

func (a *topicAdmin) shapeError(specs []oona.TopicSpec, v view) error {
	var faults []bus.TopicFault
	for _, spec := range specs {
		faults = append(faults, a.shapeFaults(spec, v.topics[spec.Name])...)
	}
	if len(faults) == 0 {
		return nil
	}
	return &bus.TopicsError{Faults: faults}
}

// create creates a topic unless it exists. Without the permission to create topics, existing topics
// can still be configured. If only two brokers are known, a third one may be unreachable at the
// moment. So create first tries three replicas, and makes one replica only if Kafka refuses that.
func (a *topicAdmin) create(spec oona.TopicSpec, known bool) ([]bus.TopicChange, error) {
	const two = replicas - 1
	most := a.most
	if most == two {
		a.most = replicas
	}
	err := a.createOnce(spec)
	if err != nil && most == two {
		a.most = most
		if errors.Is(err, sarama.ErrInvalidReplicationFactor) {
			err = a.createOnce(spec)
		}
	}
	denied := errors.Is(err, sarama.ErrTopicAuthorizationFailed) || errors.Is(err, sarama.ErrClusterAuthorizationFailed)
	if errors.Is(err, sarama.ErrTopicAlreadyExists) || known && denied {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("create topic %s: %w", spec.Name, err)
	}
	return []bus.TopicChange{{Topic: spec.Name, What: fmt.Sprintf("created, partitions: %d, replication: %d", spec.Partitions, a.replication())}}, nil
}

func (a *topicAdmin) createOnce(spec oona.TopicSpec) error {
	entries := make(map[string]*string)
	for _, s := range a.settings(spec) {
		if !s.least { // the brokers' default may be greater
			entries[s.name] = &s.must
		}
	}
	if spec.Forever {
		unlimited := "-1"
		entries["retention.ms"], entries["retention.bytes"] = &unlimited, &unlimited
	}
	return a.CreateTopic(spec.Name, &sarama.TopicDetail{NumPartitions: spec.Partitions, ReplicationFactor: a.replication(), ConfigEntries: entries}, false)
}

func (a *topicAdmin) configure(topic string, wrong []setting) (changes []bus.TopicChange, err error) {
	if len(wrong) == 0 {
		return nil, nil
	}
	entries := make(map[string]sarama.IncrementalAlterConfigsEntry, len(wrong))
	for _, s := range wrong {
		entries[s.name] = sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &s.must}
		changes = append(changes, bus.TopicChange{Topic: topic, What: fmt.Sprintf("%s was %s, is %s now", s.name, s.is, s.must)})
	}
	if err := a.IncrementalAlterConfig(sarama.TopicResource, topic, entries, false); err != nil {
		return nil, fmt.Errorf("configure topic %s: %w", topic, err)
	}
	return changes, nil
}

// unsettled returns an error that names a broker that does not know the topics as they
// must be, or a partition whose leader does not answer.
func (a *topicAdmin) unsettled(ctx context.Context, specs []oona.TopicSpec, views []view) error {
	for _, v := range views {
		if v.err != nil {
			return fmt.Errorf("%s does not answer: %w", v.broker, v.err)
		}
		for _, spec := range specs {
			if err := a.settled(spec, v, views[0]); err != nil {
				return err
			}
		}
	}
	// A broker knows that it leads a partition before it serves it.
	names := make([]string, len(specs))
	for i, spec := range specs {
		names[i] = spec.Name
	}
	partitions, err := partitionsIn(ctx, a.cfg, a.client, names...)
	if err == nil {
		_, err = offsetsAt(ctx, a.cfg, a.client, sarama.OffsetNewest, partitions)
	}
	return err
}

// settled returns an error if a broker does not know a topic, or knows it differently
// than another broker.
func (a *topicAdmin) settled(spec oona.TopicSpec, v, other view) error {
	topic := v.topics[spec.Name]
	if topic == nil {
		return fmt.Errorf("%s does not know topic %s", v.broker, spec.Name)
	}
	for _, p := range topic.Partitions {
		if p.Leader < 0 {
			return fmt.Errorf("%s does not know a leader of %s/%d", v.broker, spec.Name, p.ID)
		}
	}
	if known := other.topics[spec.Name]; len(topic.Partitions) != len(known.Partitions) {
		return fmt.Errorf("the number of partitions of %s is %d on %s, and %d on %s", spec.Name, len(topic.Partitions), v.broker, len(known.Partitions), other.broker)
	}
	for _, s := range a.wrongSettings(spec, v) {
		return fmt.Errorf("%s: topic %s %s", v.broker, spec.Name, s.fault())
	}
	return nil
}

func (a *topicAdmin) check(ctx context.Context, specs []oona.TopicSpec) ([]bus.TopicFault, error) {
	if len(specs) == 0 {
		return nil, nil
	}
	for began := time.Now(); ; {
		views, err := a.look(ctx, specs)
		if err != nil {
			return nil, err
		}
		faults, clean, err := a.faults(specs, views)
		if clean {
			return nil, nil
		}
		if err = refusedAccess(err); errors.Is(err, bus.ErrDenied) {
			return nil, err
		}
		if time.Since(began) > a.cfg.SettleTime() {
			return faults, err
		}
		if !bus.Pause(ctx, lookPause) {
			return nil, fmt.Errorf("look at topics: %w", ctx.Err())
		}
	}
}
