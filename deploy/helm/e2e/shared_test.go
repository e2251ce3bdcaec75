package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// few are values for a release of one ingest, two aggregators and one exporter.
var few = []string{"--set", "ingest.replicas=1", "--set", "aggregate.replicas=2", "--set", "exporter.replicas=1"}

// TestSharedKafka installs two releases on one broker, with topics of two prefixes. The
// releases have one name, in two namespaces, so their pods have the same names. They get
// frames of the same training runs. Each accounts for its own frames only, also while the
// other is taken away.
func TestSharedKafka(t *testing.T) {
	one := newWorld(t)
	two := one.beside("evaluation", "tamiyo")
	step(t, "another namespace", func() error { return two.prepareNamespace(t.Context()) })
	for _, w := range []*world{one, two} {
		w.prepare(t)
		w.step(t, "helm install --wait in "+w.namespace, func(ctx context.Context) error { return w.installFew(ctx) })
	}
	for _, w := range []*world{one, two} {
		w.step(t, "frames flow into rollups of "+w.prefix, func(ctx context.Context) error {
			return errors.Join(w.startLoad(t), w.flows(ctx))
		})
	}
	one.step(t, "both work for a while", func(ctx context.Context) error { return sleep(ctx, 10*time.Second) })
	one.step(t, "the labels of "+one.prefix, one.labelled)
	two.step(t, "the labels of "+two.prefix, two.labelled)
	one.step(t, "the commits of "+one.prefix, func(ctx context.Context) error { return one.commits(ctx, "oona-aggregate") })
	two.step(t, "the commits of "+two.prefix, func(ctx context.Context) error { return two.commits(ctx, "tamiyo-oona-aggregate") })
	one.step(t, "reconciliation of "+one.prefix, one.account)
	one.step(t, "the exporter of "+one.prefix, one.exported)
	one.step(t, "helm uninstall in "+one.namespace, func(ctx context.Context) error {
		_, err := one.runHelm(ctx, "uninstall", release, "--wait")
		return err
	})
	two.step(t, "the other works for a while", func(ctx context.Context) error {
		return errors.Join(sleep(ctx, 10*time.Second), two.worksFew(ctx))
	})
	two.step(t, "reconciliation of "+two.prefix, two.account)
	two.step(t, "the exporter of "+two.prefix, two.exported)
	for _, figure := range append(one.figures, two.figures...) {
		t.Log(figure)
	}
}

// beside returns another namespace of the cluster, for a release with another prefix. It
// has the same broker.
func (w *world) beside(namespace, prefix string) *world {
	other := *w
	other.namespace, other.prefix = namespace, prefix
	return &other
}

func (w *world) installFew(ctx context.Context, args ...string) error {
	all := append([]string{"install", release, "../oona", "--values", w.values, "--wait", "--timeout", "3m"}, few...)
	if _, err := w.runHelm(ctx, append(all, args...)...); err != nil {
		return err
	}
	return w.worksFew(ctx)
}

func (w *world) worksFew(ctx context.Context) error {
	return errors.Join(
		w.serve(ctx, "ingest", 1, firstTag),
		w.serve(ctx, "aggregate", 2, firstTag),
		w.serve(ctx, "exporter", 1, firstTag),
		w.owned(ctx),
	)
}

// labelled checks that each series of each worker has the prefix as a label. The alerts are
// grouped by it.
func (w *world) labelled(ctx context.Context) error {
	var errs []error
	for component := range adminPorts {
		pods, err := w.pods(ctx, component)
		errs = append(errs, err)
		for i := range pods {
			m, err := w.scrape(ctx, &pods[i])
			errs = append(errs, err)
			for family := range m {
				for labels := range m.values(family) {
					if !strings.Contains(","+labels, ",prefix="+w.prefix+",") {
						errs = append(errs, fmt.Errorf("%s: %s{%s} does not have the prefix %s", pods[i].Name, family, labels, w.prefix))
					}
				}
			}
		}
	}
	return errors.Join(errs...)
}

// commits checks that a group has committed the partitions of the frames, and of no other
// topic.
func (w *world) commits(ctx context.Context, group string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Addrs()...))
	if err != nil {
		return err
	}
	defer client.Close()
	offsets, err := kadm.NewClient(client).FetchOffsets(ctx, group)
	if err != nil {
		return err
	}
	var errs []error
	offsets.Each(func(o kadm.OffsetResponse) {
		if o.Topic != w.prefix+".telemetry.seed.metrics" {
			errs = append(errs, fmt.Errorf("group %s has committed partition %d of %s", group, o.Partition, o.Topic))
		}
	})
	if n := len(offsets.Offsets().Sorted()); n != w.partitions {
		errs = append(errs, fmt.Errorf("group %s has committed %d partitions, want %d", group, n, w.partitions))
	}
	return errors.Join(errs...)
}

// exported waits until the exporters have read the windows that were reconciled. They must
// not read others.
func (w *world) exported(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return await(ctx, "the exporter to have read all windows", func(ctx context.Context) error {
		read, _, err := w.sum(ctx, "exporter", "oona_exporter_rollups_total") // of both groups
		if err == nil && int(read) != 2*w.windows {
			err = fmt.Errorf("the exporter has read %v rollups, want 2 of each of %d windows", read, w.windows)
		}
		return err
	})
}
