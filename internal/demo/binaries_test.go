package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/loadgen"
)

// The three binaries, each in its own process, do what the demo does in one: a
// recorded run arrives at the exporter, and all of them exit cleanly on SIGTERM.
func TestBinaries(t *testing.T) {
	t.Parallel()
	want, frames := oracle(t)
	binaries := build(t, "ingest", "aggregate", "exporter")
	brokers(t, func(t *testing.T, addresses []string) {
		inTime(t, addresses, func(t *testing.T, ctx context.Context, cfg Config) (late bool) {
			return runBinaries(t, ctx, cfg, binaries, want, frames)
		})
	})
}

func runBinaries(t *testing.T, ctx context.Context, cfg Config, binaries map[string]string, want map[oona.LayerID]*total, frames int64) (late bool) {
	t.Helper()
	topics, err := oona.NewTopics(cfg.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.New(kafka.Config{Brokers: cfg.Kafka, ClientID: "test"}, nil).Apply(ctx, topics.Specs(3)); err != nil {
		t.Fatal(err)
	}
	common := []string{"--brokers", strings.Join(cfg.Kafka, ","), "--prefix", cfg.Prefix, "--admin-address", "127.0.0.1:0", "--log-format", "json"}
	ingest := launch(t, binaries["ingest"], append(common, "--listen", "127.0.0.1:0")...)
	aggregate := launch(t, binaries["aggregate"], append(common, "--group", cfg.Prefix, "--window-length", "1s", "--out-of-orderness", "100ms",
		"--allowed-lateness", "250ms", "--tick-interval", "125ms", "--idle-horizon", cfg.Idle.String())...)
	exporter := launch(t, binaries["exporter"], common...)
	for _, p := range []*process{ingest, aggregate, exporter} {
		p.awaitReady(t, ctx)
	}

	file, err := os.Open(recording)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	playing := loadgen.DefaultConfig()
	playing.URL = "http://" + ingest.address("ingest accepts frames")
	playing.Speed = loadgen.MaxSpeed
	playing.Recording = file
	p, err := loadgen.New(playing)
	if err != nil {
		t.Fatal(err)
	}
	result, err := p.Run(ctx)
	if err != nil || result.Acknowledged != frames {
		t.Fatalf("%d of %d frames were acknowledged: %v", result.Acknowledged, frames, err)
	}
	for layer, total := range want {
		const name = "kasmina_layer_frames_total"
		for exporter.metric(t, name, string(layer)) != float64(total.frames) && !late && bus.Pause(ctx, pollInterval) {
			late = aggregate.labelled(t, "oona_aggregate_records_total", "verdict", "late") > 0
		}
		if got := exporter.metric(t, name, string(layer)); got != float64(total.frames) && !late {
			t.Errorf("%s of layer %s is %v, want %d", name, layer, got, total.frames)
		}
	}
	for _, p := range []*process{ingest, aggregate, exporter} {
		checkOpenMetrics(t, p.url)
		p.terminate(t)
	}
	return late
}

// build compiles commands once for the test.
func build(t *testing.T, names ...string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	paths := make(map[string]string)
	args := []string{"build", "-o", dir}
	for _, name := range names {
		args = append(args, "github.com/morphogenetic/oona/cmd/"+name)
		paths[name] = filepath.Join(dir, name)
	}
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return paths
}

// process is a running binary whose log lines are kept.
type process struct {
	name  string
	cmd   *exec.Cmd
	lines chan map[string]any // closed at the end of its stderr
	seen  []map[string]any
	url   string // of its admin server
}

// launch starts one of our binaries and waits until its admin server listens.
func launch(t *testing.T, path string, args ...string) *process {
	t.Helper()
	p := launchAny(t, path, args...)
	p.url = "http://" + p.address("admin server listens")
	return p
}

func launchAny(t *testing.T, path string, args ...string) *process {
	t.Helper()
	p := &process{name: filepath.Base(path), cmd: exec.Command(path, args...), lines: make(chan map[string]any, 10_000)}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var line map[string]any
			if json.Unmarshal(lines.Bytes(), &line) != nil {
				line = map[string]any{"msg": lines.Text()}
			}
			select {
			case p.lines <- line:
			default: // the test does not read that many
			}
		}
	}()
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill() // the test has failed before it ended the process
			_ = p.cmd.Wait()
		}
		if t.Failed() {
			p.drain()
			t.Logf("%s said: %v", p.name, p.seen)
		}
	})
	return p
}

// address waits for the log line that says where a server listens.
func (p *process) address(said string) string {
	for _, line := range p.seen {
		if line["msg"] == said {
			return fmt.Sprint(line["address"])
		}
	}
	for line := range p.lines {
		p.seen = append(p.seen, line)
		if line["msg"] == said {
			return fmt.Sprint(line["address"])
		}
	}
	return ""
}

func (p *process) drain() {
	for line := range p.lines {
		p.seen = append(p.seen, line)
	}
}

func (p *process) awaitReady(t *testing.T, ctx context.Context) {
	t.Helper()
	answer := ""
	for ctx.Err() == nil {
		response, err := http.Get(p.url + "/readyz")
		if err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return
		}
		answer = string(body)
		bus.Pause(ctx, pollInterval)
	}
	t.Fatalf("%s did not become ready: %s", p.name, answer)
}

// metric returns the sum of the series of a counter or gauge, for one layer, or for
// all layers if layer is empty.
func (p *process) metric(t *testing.T, name, layer string) (sum float64) {
	t.Helper()
	for _, m := range p.series(t, name) {
		if layer == "" || label(m, "layer") == layer {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// series returns the series of a metric that the process shows now.
func (p *process) series(t *testing.T, name string) []*dto.Metric {
	t.Helper()
	response, err := http.Get(p.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families[name].GetMetric()
}

func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.drain()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%s ended with %v after SIGTERM", p.name, err)
	}
}

// The aggregator does not start on topics with wrong settings, and says how to
// correct them.
func TestAggregatorChecksItsTopics(t *testing.T) {
	t.Parallel()
	broker, err := embedded.Start(t.Context(), embedded.Options{Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	path := build(t, "aggregate")["aggregate"]
	start := func() string {
		out, err := exec.CommandContext(t.Context(), path, "--brokers", broker.Addrs[0], "--admin-address", "127.0.0.1:0").CombinedOutput()
		if err == nil {
			t.Error("it ran, and ended without an error")
		}
		return string(out)
	}
	if out := start(); !strings.Contains(out, "kasmina.telemetry.seed.metrics does not exist") || !strings.Contains(out, "oona topics apply") {
		t.Errorf("without topics it says %s", out)
	}
	topics, err := oona.NewTopics("kasmina")
	if err != nil {
		t.Fatal(err)
	}
	specs := topics.Specs(4)
	specs[1].Partitions = 2
	if _, err := kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, nil).Apply(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	if out := start(); !strings.Contains(out, "layer.health has 2 partitions and kasmina.telemetry.seed.metrics has 4") {
		t.Errorf("with too few partitions for rollups it says %s", out)
	}
}
