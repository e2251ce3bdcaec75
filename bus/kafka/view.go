package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// view has the topics and settings that one broker knows. The controller makes a change, and the
// other brokers learn of it some time later.
type view struct {
	broker   string
	topics   map[string]*sarama.TopicMetadata // known topics
	settings map[string]map[string]string     // settings of the known topics, by topic and name
	err      error                            // set if the broker did not answer, or refused
}

var errNotAsked = errors.New("the broker has just joined the cluster, and was not asked yet")

// look asks all brokers of the cluster for their views, at the same time. If a broker does not
// answer, its view has an error; but if no other broker lists it as part of the cluster any more, it
// is left out.
func (a *topicAdmin) look(ctx context.Context, specs []oona.TopicSpec) ([]view, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("look at topics: %w", err)
	}
	var (
		mu     sync.Mutex
		views  = make(map[int32]view)
		now    = make(map[int32]string) // the brokers of the cluster
		asking sync.WaitGroup
	)
	for id, address := range a.brokers {
		asking.Go(func() {
			v, counted := a.ask(address, specs)
			mu.Lock()
			defer mu.Unlock()
			views[id] = v
			maps.Copy(now, counted)
		})
	}
	asking.Wait()
	for id, v := range views {
		if _, counted := now[id]; v.err != nil && !counted && len(now) > 0 {
			delete(views, id)
		}
	}
	for id, address := range now {
		if _, asked := views[id]; !asked {
			views[id] = view{broker: address, err: errNotAsked}
		}
	}
	if len(now) > 0 {
		a.brokers, a.most = now, max(a.most, len(now))
	}
	var all []view
	for _, id := range slices.Sorted(maps.Keys(views)) {
		v := views[id]
		v.broker = fmt.Sprintf("broker %d at %s", id, v.broker)
		all = append(all, v)
	}
	return all, nil
}

// ask returns the view of a broker, and the brokers that it lists as part of the cluster.
func (a *topicAdmin) ask(address string, specs []oona.TopicSpec) (v view, counted map[int32]string) {
	v = view{broker: address, topics: make(map[string]*sarama.TopicMetadata), settings: make(map[string]map[string]string)}
	broker := sarama.NewBroker(address)
	if v.err = broker.Open(a.client.Config()); v.err != nil {
		return v, nil
	}
	defer broker.Close()
	names := make([]string, len(specs))
	for i, spec := range specs {
		names[i] = spec.Name
	}
	response, err := broker.GetMetadata(sarama.NewMetadataRequest(a.client.Config().Version, names))
	if err != nil {
		v.err = err
		return v, nil
	}
	counted = make(map[int32]string)
	for _, b := range response.Brokers {
		counted[b.ID()] = b.Addr()
	}
	for _, topic := range response.Topics {
		switch {
		case errors.Is(topic.Err, sarama.ErrUnknownTopicOrPartition):
		case errors.Is(topic.Err, sarama.ErrNoError), errors.Is(topic.Err, sarama.ErrLeaderNotAvailable):
			v.topics[topic.Name] = topic
		default:
			v.err = fmt.Errorf("look at topic %s: %w", topic.Name, topic.Err)
			return v, counted
		}
	}
	v.err = a.describe(broker, specs, &v)
	return v, counted
}

// describe adds the settings of the topics to a view. It removes topics whose settings the broker
// does not know.
func (a *topicAdmin) describe(broker *sarama.Broker, specs []oona.TopicSpec, v *view) error {
	request := &sarama.DescribeConfigsRequest{Version: 4} // of Kafka 2.8
	for _, spec := range specs {
		if v.topics[spec.Name] != nil {
			resource := &sarama.ConfigResource{Type: sarama.TopicResource, Name: spec.Name, ConfigNames: []string{ageSetting, bytesSetting}}
			for _, s := range a.settings(spec) {
				resource.ConfigNames = append(resource.ConfigNames, s.name)
			}
			request.Resources = append(request.Resources, resource)
		}
	}
	if len(request.Resources) == 0 {
		return nil
	}
	response, err := broker.DescribeConfigs(request)
	if err != nil {
		return fmt.Errorf("look at the configuration of topics: %w", err)
	}
	for _, r := range response.Resources {
		switch code := sarama.KError(r.ErrorCode); code {
		case sarama.ErrNoError:
			v.settings[r.Name] = make(map[string]string)
			for _, e := range r.Configs {
				v.settings[r.Name][e.Name] = e.Value
			}
		case sarama.ErrUnknownTopicOrPartition:
			delete(v.topics, r.Name)
		default:
			return fmt.Errorf("look at the configuration of %s: %w", r.Name, &sarama.DescribeConfigError{Err: code, ErrMsg: r.ErrorMsg})
		}
	}
	return nil
}

// faults returns the faults that all views without an error have. clean is true if no
// view has a fault or an error.
func (a *topicAdmin) faults(specs []oona.TopicSpec, views []view) (common []bus.TopicFault, clean bool, err error) {
	answers := 0
	clean = true
	for _, v := range views {
		if v.err != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", v.broker, v.err))
			continue
		}
		faults := a.faultsOf(specs, v)
		clean = clean && len(faults) == 0
		if answers++; answers == 1 {
			common = faults
		}
		common = slices.DeleteFunc(common, func(f bus.TopicFault) bool { return !slices.Contains(faults, f) })
	}
	if answers == 0 {
		return nil, false, fmt.Errorf("look at topics: %w", err)
	}
	return common, clean, nil
}

func (a *topicAdmin) faultsOf(specs []oona.TopicSpec, v view) (faults []bus.TopicFault) {
	for _, spec := range specs {
		topic := v.topics[spec.Name]
		if topic == nil {
			faults = append(faults, bus.TopicFault{Topic: spec.Name, Kind: bus.FaultMissing, Fault: "does not exist"})
			continue
		}
		faults = append(faults, a.shapeFaults(spec, topic)...)
		if like := v.topics[spec.PartitionsOf]; like != nil && len(like.Partitions) != len(topic.Partitions) {
			faults = append(faults, bus.UnequalPartitions(spec.Name, len(topic.Partitions), spec.PartitionsOf, len(like.Partitions)))
		}
		for _, s := range a.wrongSettings(spec, v) {
			faults = append(faults, bus.TopicFault{Topic: spec.Name, Kind: s.kind(), Fault: s.fault()})
		}
	}
	return faults
}

// shapeFaults returns the faults that Apply does not correct.
func (a *topicAdmin) shapeFaults(spec oona.TopicSpec, topic *sarama.TopicMetadata) (faults []bus.TopicFault) {
	if has := len(topic.Partitions); spec.Partitions > 0 && !spec.AnyPartitions && has != int(spec.Partitions) {
		faults = append(faults, bus.WrongPartitions(spec.Name, has, int(spec.Partitions)))
	}
	if len(topic.Partitions) == 0 {
		return faults
	}
	fewest := len(topic.Partitions[0].Replicas)
	for _, p := range topic.Partitions {
		fewest = min(fewest, len(p.Replicas))
	}
	if fewest < int(a.replication()) {
		faults = append(faults, bus.TopicFault{
			Topic: spec.Name, Kind: bus.FaultCopies,
			Fault:  fmt.Sprintf("has %d of the %d replicas that it must have", fewest, a.replication()),
			Remedy: "add replicas with kafka-reassign-partitions.sh",
		})
	}
	return faults
}

const limitSetting = "max.message.bytes"

// setting is a setting of a topic, and its required value.
type setting struct {
	name, is, must string
	least          bool // whether a greater value is right, too
}

func (s setting) wrong() bool {
	if !s.least {
		return s.is != s.must
	}
	is, err := strconv.Atoi(s.is)
	must, _ := strconv.Atoi(s.must) // always a number: see the function settings
	return err != nil || is < must
}

func (s setting) fault() string {
	if s.least {
		return fmt.Sprintf("has %s=%s and must have at least %s", s.name, s.is, s.must)
	}
	return fmt.Sprintf("has %s=%s and must have %s", s.name, s.is, s.must)
}

func (s setting) kind() bus.FaultKind {
	switch {
	case s.least:
		return bus.FaultSize
	case s.name == limitSetting:
		return bus.FaultLimit
	}
	return bus.FaultSetting
}

// settings returns the settings that Oona depends on. It does not change any other setting.
func (a *topicAdmin) settings(spec oona.TopicSpec) []setting {
	s := []setting{{name: "cleanup.policy", must: "delete"}}
	if spec.Compacted {
		s[0].must = "compact"
	}
	if spec.AppendTime {
		s = append(s, setting{name: "message.timestamp.type", must: "LogAppendTime"})
	}
	if spec.MaxMessageBytes > 0 {
		s = append(s, setting{name: limitSetting, must: strconv.Itoa(spec.MaxMessageBytes)})
	}
	if spec.LeastMessageBytes > 0 {
		s = append(s, setting{name: limitSetting, must: strconv.Itoa(spec.LeastMessageBytes), least: true})
	}
	if a.replication() >= replicas {
		s = append(s, setting{name: "min.insync.replicas", must: strconv.Itoa(inSync)})
	}
	return s
}

func (a *topicAdmin) wrongSettings(spec oona.TopicSpec, v view) (wrong []setting) {
	for _, s := range a.settings(spec) {
		if s.is = v.settings[spec.Name][s.name]; s.wrong() {
			wrong = append(wrong, s)
		}
	}
	return wrong
}
