package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	idleHorizon = 15 * time.Second
	// slack is what a window may be held open beyond the idle horizon on a busy machine.
	slack = 5 * time.Second
)

// values of the chart: every connection is secured, and windows are short, so that the
// test is.
const values = `
image: {tag: %s}
kafka:
  brokers: ["%s"]
  tls: {enabled: true, caSecret: ` + authoritySecret + `}
  sasl: {mechanism: scram-sha-512, username: ` + kafkaUser + `, existingSecret: ` + kafkaSecret + `}
  prefix: %s
topics:
  partitions: %d
  windows: {window-length: 5s, allowed-lateness: 2s, idle-horizon: %s}
ingest: {tls: {existingSecret: ` + certificateSecret + `}, access: {existingSecret: ` + accessSecret + `}}
admin: {tls: {existingSecret: ` + certificateSecret + `}, access: {existingSecret: ` + accessSecret + `}}
test: {caSecret: ` + authoritySecret + `, tokenSecret: ` + accessSecret + `}
`

// TestChart takes a release through its life while two training runs send frames. In the
// end, every frame is accounted for.
func TestChart(t *testing.T) {
	w := newWorld(t)
	w.prepare(t)
	w.step(t, "an object with an unknown field is noticed", w.strict)
	w.step(t, "helm install --wait", w.install)
	step(t, "frames flow into rollups", func() error {
		if err := w.startLoad(t); err != nil {
			return err
		}
		w.watchOldest(t)
		return w.flows(t.Context())
	})
	w.step(t, "nothing happens, for comparison", func(ctx context.Context) error {
		err := sleep(ctx, 20*time.Second)
		w.usual = w.oldest.peek()
		return err
	})
	w.step(t, "another certificate in the Secret, without a restart", w.rotate)
	w.step(t, "helm upgrade --wait of ingest", w.rolloutOfIngest)
	w.step(t, "helm upgrade --wait of everything", w.upgrade)
	w.step(t, "helm upgrade --atomic to an image that does not exist", w.badImage)
	w.step(t, "helm upgrade --atomic to arguments that do not exist", w.badArguments)
	w.step(t, "helm rollback --wait to the first revision", w.rollback)
	w.step(t, "drain of a node", func(ctx context.Context) error {
		return errors.Join(w.drainNode(ctx), w.settled(ctx, firstTag, 2, 3))
	})
	w.step(t, "scale up to 3 ingests and 5 aggregators", func(ctx context.Context) error { return w.scaleTo(ctx, 3, 5) })
	w.step(t, "Kafka is down, and then there is one ingest less", w.outage)
	w.step(t, "scale down to 2 ingests and 2 aggregators", func(ctx context.Context) error { return w.scaleTo(ctx, 2, 2) })
	w.step(t, "helm test", func(ctx context.Context) error {
		output, err := w.runHelm(ctx, "test", release, "--timeout", "2m")
		if err == nil && !strings.Contains(output, "Phase:          Succeeded") {
			err = fmt.Errorf("no test succeeded:\n%s", output)
		}
		return err
	})
	w.step(t, "reconciliation", w.account)
	for _, figure := range w.figures {
		t.Log(figure)
	}
}

// prepare makes what a user has before the chart is installed: Secrets, and a values file.
func (w *world) prepare(t *testing.T) {
	t.Helper()
	w.values = filepath.Join(w.dir, "values-"+w.namespace+".yaml")
	text := fmt.Appendf(nil, values, firstTag, w.kafka.SecureAddrs("scram")[0], w.prefix, w.partitions, idleHorizon)
	if err := os.WriteFile(w.values, text, 0o644); err != nil {
		t.Fatal(err)
	}
	step(t, "Secrets of "+w.namespace, func() error { return w.makeSecrets(t.Context()) })
}

// step does something while frames flow, and prints how long it took and the greatest age
// of a window. If the test fails, it does not go on.
func (w *world) step(t *testing.T, name string, do func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	if w.oldest != nil {
		w.oldest.reset()
	}
	began := time.Now()
	err := do(ctx)
	note := ""
	if w.oldest != nil && w.load != nil {
		counts := w.load.counts()
		note = fmt.Sprintf(" (oldest window %.1f s; %d frames sent, %d requests sent again)", w.oldest.reset(), counts.Sent, counts.Retries)
	}
	if err != nil {
		w.diagnose(t)
		t.Fatalf("%s: %v", name, err)
	}
	t.Logf("%6.1f s  %s%s", time.Since(began).Seconds(), name, note)
}

func (w *world) figure(format string, args ...any) {
	w.figures = append(w.figures, fmt.Sprintf(format, args...))
}

// strict checks that a misspelt field of the chart would be noticed.
func (w *world) strict(ctx context.Context) error {
	object := `extraObjects=[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"misspelt"},"dta":{"a":"b"}}]`
	_, err := w.runHelm(ctx, "install", "misspelt", "../oona", "--values", w.values, "--set-json", object,
		"--set", "ingest.enabled=false,aggregate.enabled=false,exporter.enabled=false,topics.mode=none")
	if !errors.Is(err, errUnknownField) {
		return fmt.Errorf("want an error about the field dta; got: %v", err)
	}
	_, err = w.runHelm(ctx, "uninstall", "misspelt", "--wait")
	return err
}

func (w *world) install(ctx context.Context) error {
	if _, err := w.runHelm(ctx, "install", release, "../oona", "--values", w.values, "--wait", "--timeout", "3m"); err != nil {
		return err
	}
	return w.works(ctx, firstTag, firstTag, firstTag)
}

// upgradeTo upgrades the release with more values, and waits.
func (w *world) upgradeTo(ctx context.Context, args ...string) error {
	_, err := w.runHelm(ctx, append([]string{"upgrade", release, "../oona", "--values", w.values, "--wait"}, args...)...)
	return err
}

func (w *world) rolloutOfIngest(ctx context.Context) error {
	if err := w.upgradeTo(ctx, "--timeout", "3m", "--set", "ingest.image.tag="+nextTag); err != nil {
		return err
	}
	// Windows that the rollout held open are open for a while after it.
	if err := sleep(ctx, idleHorizon); err != nil {
		return err
	}
	most := w.oldest.peek()
	w.figure("over a rollout of ingest, oona_aggregate_oldest_window_seconds was %.1f at most; without one, %.1f; the idle horizon is %s", most, w.usual, idleHorizon)
	if limit := w.usual + idleHorizon.Seconds() + slack.Seconds(); most > limit {
		return fmt.Errorf("a window was held open until it was %.1f s old, for longer than %.0f s", most, limit)
	}
	return w.works(ctx, nextTag, firstTag, firstTag)
}

func (w *world) upgrade(ctx context.Context) error {
	if err := w.upgradeTo(ctx, "--timeout", "3m", "--set", "image.tag="+nextTag); err != nil {
		return err
	}
	return w.works(ctx, nextTag, nextTag, nextTag)
}

func (w *world) badImage(ctx context.Context) error {
	return w.refused(ctx, "ImagePullBackOff", "--set", "aggregate.image.tag=missing")
}

func (w *world) badArguments(ctx context.Context) error {
	return w.refused(ctx, "CrashLoopBackOff", "--set", "aggregate.extraArgs={--no-such-flag}")
}

// refused checks that an upgrade does not succeed because an aggregator waits for a
// reason, and that afterwards the release is as it was before. Only the aggregator that is
// replaced first was touched.
func (w *world) refused(ctx context.Context, why string, args ...string) error {
	before, err := w.uids(ctx)
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	seen := make(chan error, 1)
	go func() { seen <- await(watching, why, func(ctx context.Context) error { return w.waitsFor(ctx, why) }) }()
	err = w.upgradeTo(ctx, append(args, "--set", "image.tag="+nextTag, "--atomic", "--timeout", "25s")...)
	stop()
	switch {
	case err == nil:
		return errors.New("the upgrade succeeded")
	case !strings.Contains(err.Error(), "has been rolled back due to atomic being set"):
		return fmt.Errorf("the upgrade was not rolled back: %w", err)
	}
	if err := <-seen; err != nil {
		return err
	}
	if err := await(ctx, "the release to be as before", func(ctx context.Context) error { return w.works(ctx, nextTag, nextTag, nextTag) }); err != nil {
		return err
	}
	after, err := w.uids(ctx)
	if err != nil {
		return err
	}
	for name, uid := range before {
		if after[name] == uid {
			delete(after, name)
		}
	}
	if len(after) != 1 || !strings.HasPrefix(slices.Collect(maps.Keys(after))[0], release+"-aggregate-") {
		return fmt.Errorf("%v were replaced, want one aggregator", slices.Collect(maps.Keys(after)))
	}
	return nil
}

// waitsFor checks that an aggregator waits for a reason.
func (w *world) waitsFor(ctx context.Context, why string) error {
	pods, err := w.pods(ctx, "aggregate")
	if err != nil {
		return err
	}
	for i := range pods {
		if reason(&pods[i]) == why {
			return nil
		}
	}
	return errors.New("no aggregator waits for this reason")
}

func (w *world) rollback(ctx context.Context) error {
	if _, err := w.runHelm(ctx, "rollback", release, "1", "--wait", "--timeout", "3m"); err != nil {
		return err
	}
	return w.works(ctx, firstTag, firstTag, firstTag)
}

// settled waits until the release has its pods and all partitions are read.
func (w *world) settled(ctx context.Context, tag string, ingests, aggregators int) error {
	return await(ctx, "the pods", func(ctx context.Context) error {
		return errors.Join(
			w.serve(ctx, "ingest", ingests, tag),
			w.serve(ctx, "aggregate", aggregators, tag),
			w.serve(ctx, "exporter", 2, tag),
			w.owned(ctx),
		)
	})
}

func (w *world) scaleTo(ctx context.Context, ingests, aggregators int) error {
	err := errors.Join(w.scale(ctx, release+"-ingest", int32(ingests)), w.scale(ctx, release+"-aggregate", int32(aggregators)))
	if err != nil {
		return err
	}
	return w.settled(ctx, firstTag, ingests, aggregators)
}

// flows waits until rollups of the load are emitted and shown.
func (w *world) flows(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return await(ctx, "rollups", func(ctx context.Context) error {
		read, _, err := w.sum(ctx, "exporter", "oona_exporter_rollups_total")
		if err == nil && read == 0 {
			err = errors.New("the exporters have read no rollup")
		}
		return err
	})
}

// account stops the load, waits until all windows are closed, and reconciles.
func (w *world) account(ctx context.Context) error {
	sent, err := w.load.finish()
	if err != nil {
		return err
	}
	w.figure("%d requests were sent again; at most, a frame was sent %.1f s late", w.load.counts().Retries, w.load.counts().Behind.Seconds())
	err = await(ctx, "all windows to close", func(ctx context.Context) error {
		var errs []error
		for _, family := range []string{"oona_aggregate_lag_records", "oona_aggregate_open_windows", "oona_aggregate_pending_messages"} {
			sum, series, err := w.sum(ctx, "aggregate", family)
			if err == nil && (sum > 0 || series < w.partitions) {
				err = fmt.Errorf("%s is %v in %d partitions", family, sum, series)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return err
	}
	return w.reconcile(ctx, sent)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
