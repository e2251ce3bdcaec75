package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona"
)

// noCreate are values for topics that somebody else makes. The Job is not tried again.
var noCreate = []string{"--set", "topics.mode=no-create,topics.backoffLimit=0"}

// allowedBytes is the largest size of a record on this Kafka. It is less than what Oona
// sets for rollups.
const allowedBytes = 8 << 20

// TestTopicsOfOthers installs a release with topics that somebody else makes, with another
// number of partitions than that of the chart. While the topics are wrong, the installation
// fails and says what is wrong.
func TestTopicsOfOthers(t *testing.T) {
	w := newWorld(t)
	w.partitions = 4
	w.prepare(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	topics, err := oona.NewTopics(w.prefix)
	if err != nil {
		t.Fatal(err)
	}
	others := &others{kadm.NewClient(client), topics, w.partitions}
	all := make(map[string]string)
	for _, spec := range others.specs() {
		all[spec.Name] = "does not exist"
	}
	w.step(t, "without topics, helm install fails", func(ctx context.Context) error { return w.refusesTopics(ctx, all) })
	w.step(t, "somebody makes topics, two of which are wrong", others.make)
	w.step(t, "with wrong topics, helm install fails", func(ctx context.Context) error {
		return w.refusesTopics(ctx, map[string]string{topics.SeedMetrics: "message.timestamp.type=CreateTime and must have LogAppendTime", topics.LayerHealth: "3 partitions"})
	})
	w.step(t, "somebody corrects the topics", others.correct)
	w.step(t, "with another number of partitions than the topics have, helm install fails", func(ctx context.Context) error {
		wrong := map[string]string{topics.SeedMetrics: "4 partitions", topics.LayerHealth: "4 partitions", topics.LayerPerformance: "4 partitions", topics.SeedRaw: "4 partitions"}
		return w.refusesTopics(ctx, wrong, "--set", "topics.partitions=5")
	})
	w.step(t, "helm install --wait", func(ctx context.Context) error { return w.installFew(ctx, noCreate...) })
	w.step(t, "frames flow into rollups", func(ctx context.Context) error { return errors.Join(w.startLoad(t), w.flows(ctx)) })
	w.step(t, "helm upgrade --wait, which runs the Job again", func(ctx context.Context) error {
		args := slices.Concat(few, noCreate, []string{"--timeout", "3m", "--set", "logLevel=debug"})
		return errors.Join(w.upgradeTo(ctx, args...), w.worksFew(ctx))
	})
	w.step(t, "the topics are as they were made", others.unchanged)
	w.step(t, "reconciliation", w.account)
	for _, figure := range w.figures {
		t.Log(figure)
	}
}

// refusesTopics checks that an installation fails, and that the Job's log names the topics
// that are wrong, each with a text, and no others.
func (w *world) refusesTopics(ctx context.Context, wrong map[string]string, args ...string) error {
	install := append([]string{"install", release, "../oona", "--values", w.values, "--wait", "--timeout", "1m"}, noCreate...)
	if _, err := w.runHelm(ctx, append(install, args...)...); err == nil || !strings.Contains(err.Error(), release+"-topics") {
		return fmt.Errorf("want an error that names the Job; got: %w", err)
	}
	log, err := w.logOfTopics(ctx)
	if err != nil {
		return err
	}
	var errs []error
	named := make(map[string]bool)
	for line := range strings.Lines(log) {
		topic, fault, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(topic, w.prefix+".") {
			continue
		}
		named[topic] = true
		if text, found := wrong[topic]; !found || !strings.Contains(fault, text) {
			errs = append(errs, fmt.Errorf("want %q of %s", text, topic))
		}
	}
	if len(named) != len(wrong) {
		errs = append(errs, fmt.Errorf("%d topics are named, want %d", len(named), len(wrong)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w, in the log of the Job:\n%s", err, log)
	}
	_, err = w.runHelm(ctx, "uninstall", release, "--wait")
	return err
}

// logOfTopics returns what the pod of the last Job has printed.
func (w *world) logOfTopics(ctx context.Context) (string, error) {
	pods, err := w.pods(ctx, "topics")
	if err != nil {
		return "", err
	}
	if len(pods) != 1 {
		return "", fmt.Errorf("the Job has %d pods, want 1", len(pods))
	}
	text, err := os.ReadFile(filepath.Join(w.dir, logOf(&pods[0], "oona")))
	return string(text), err
}

// others makes topics in the place of Oona.
type others struct {
	admin      *kadm.Client
	topics     oona.Topics
	partitions int
}

func (o *others) specs() []oona.TopicSpec {
	n := int32(o.partitions)
	return slices.Concat(o.topics.Specs(n), o.topics.RawSpecs(n), []oona.TopicSpec{o.topics.SettingsSpec(), o.topics.RedrivesSpec()}, o.topics.EventSpecs(n))
}

// settings returns the settings of a topic, as docs/deploy.md says.
func (o *others) settings(spec oona.TopicSpec) map[string]string {
	settings := map[string]string{"cleanup.policy": "delete"}
	if spec.Compacted {
		settings["cleanup.policy"] = "compact"
	}
	if spec.MaxMessageBytes > 0 {
		settings["max.message.bytes"] = strconv.Itoa(min(spec.MaxMessageBytes, allowedBytes))
	}
	if spec.Forever {
		settings["retention.ms"], settings["retention.bytes"] = "-1", "-1"
	}
	if spec.AppendTime {
		settings["message.timestamp.type"] = "LogAppendTime"
	}
	return settings
}

// make makes the topics. The topic of frames has times that clients set, and one topic of
// rollups lacks a partition.
func (o *others) make(ctx context.Context) error {
	var errs []error
	for _, spec := range o.specs() {
		settings := make(map[string]*string)
		for name, value := range o.settings(spec) {
			settings[name] = &value
		}
		switch spec.Name {
		case o.topics.SeedMetrics:
			delete(settings, "message.timestamp.type")
		case o.topics.LayerHealth:
			spec.Partitions--
		}
		_, err := o.admin.CreateTopic(ctx, spec.Partitions, 1, settings, spec.Name)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (o *others) correct(ctx context.Context) error {
	appendTime := "LogAppendTime"
	altered, err := o.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "message.timestamp.type", Value: &appendTime}}, o.topics.SeedMetrics)
	for _, response := range altered {
		err = errors.Join(err, response.Err)
	}
	added, failed := o.admin.CreatePartitions(ctx, 1, o.topics.LayerHealth)
	for _, response := range added {
		failed = errors.Join(failed, response.Err)
	}
	return errors.Join(err, failed)
}

// unchanged checks that the topics, their partitions and settings are as they were made.
func (o *others) unchanged(ctx context.Context) error {
	is, err := o.admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	configs, err := o.admin.DescribeTopicConfigs(ctx, is.Names()...)
	if err != nil {
		return err
	}
	var errs []error
	wanted := make(map[string]map[string]string)
	for _, spec := range o.specs() {
		wanted[spec.Name] = o.settings(spec)
		if n := len(is[spec.Name].Partitions); n != int(spec.Partitions) {
			errs = append(errs, fmt.Errorf("%s has %d partitions, want %d", spec.Name, n, spec.Partitions))
		}
	}
	if len(is) != len(wanted) {
		errs = append(errs, fmt.Errorf("there are the topics %v, want %d", is.Names(), len(wanted)))
	}
	for _, topic := range configs {
		for _, setting := range topic.Configs {
			if setting.Source == kmsg.ConfigSourceDynamicTopicConfig && wanted[topic.Name][setting.Key] != setting.MaybeValue() {
				errs = append(errs, fmt.Errorf("%s has %s=%s, want %q", topic.Name, setting.Key, setting.MaybeValue(), wanted[topic.Name][setting.Key]))
			}
		}
	}
	return errors.Join(errs...)
}
