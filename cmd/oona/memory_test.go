package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/alecthomas/units"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

func TestCapOfAMemoryLimit(t *testing.T) {
	const mebibyte = units.MiB
	for _, c := range []struct {
		name           string
		flags          memoryFlags
		given          map[string]bool
		room, timeline int
		says           string // of an error
	}{
		{"no limit", memoryFlags{}, nil, 65_536, 32_768, ""},
		{"all partitions", memoryFlags{Limit: 2048 * mebibyte}, nil, 1706, 853, ""},
		{"some partitions", memoryFlags{Limit: 2048 * mebibyte, Partitions: 3}, nil, 8055, 4027, ""},
		{"timelines' given", memoryFlags{Limit: 2048 * mebibyte}, map[string]bool{"max-timeline-accumulators": true}, 1706, 32_768, ""},
		{"the least", memoryFlags{Limit: 508 * mebibyte}, nil, 64, 32, ""},
		{"too little", memoryFlags{Limit: 508*mebibyte - 1}, nil, 0, 0, "--memory-limit"},
		{"less than nothing", memoryFlags{Limit: -1}, nil, 0, 0, "--memory-limit"},
		{"too much", memoryFlags{Limit: units.EiB}, nil, 0, 0, "--max-accumulators"},
		{"both", memoryFlags{Limit: 2048 * mebibyte}, map[string]bool{"max-accumulators": true}, 0, 0, "--memory-limit"},
		{"more partitions than there are", memoryFlags{Limit: 2048 * mebibyte, Partitions: 13}, nil, 0, 0, "--worker-partitions"},
		{"partitions alone", memoryFlags{Partitions: 3}, nil, 0, 0, "--worker-partitions"},
	} {
		cfg, err := c.flags.cap(windows.DefaultConfig(), 12, c.given)
		switch {
		case c.says != "":
			if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != c.says {
				t.Errorf("%s: the error is %v, want one of %s", c.name, err, c.says)
			}
		case err != nil || cfg.MaxAccumulators != c.room || cfg.MaxTimelineAccumulators != c.timeline:
			t.Errorf("%s: room for %d, and %d of a timeline, %v; want %d and %d", c.name, cfg.MaxAccumulators, cfg.MaxTimelineAccumulators, err, c.room, c.timeline)
		}
	}
}

// An aggregator with all partitions stays under its memory limit with 100,000 layers.
// As many of them as its accumulators allow have 1,000 seeds, and all windows close at
// the same time.
func TestWorkerStaysUnderItsMemoryLimit(t *testing.T) {
	onlyWithoutRaceDetector(t)
	if runtime.GOOS != "linux" {
		t.Skip("a process's peak memory is read from /proc")
	}
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	t.Parallel()
	// Windows close when nothing has been published for the idle horizon. On a busy
	// machine that happens before all frames are published, so it is tried again with a
	// longer horizon.
	for horizon := 3 * time.Second; ; horizon *= 4 {
		late := false
		t.Run(horizon.String(), func(t *testing.T) { late = checkMemory(t, horizon) })
		if !late {
			return
		}
		if horizon > time.Minute {
			t.Fatalf("frames are late with an idle horizon of %s", horizon)
		}
	}
}

// checkMemory reports whether frames were late, in which case it has shown nothing.
func checkMemory(t *testing.T, horizon time.Duration) (late bool) {
	const keys, runs, partitions, limit = 100_000, 50, 2, 384 * units.MiB
	const room = 1638 // ((384 - 64) / 2 - 32) MiB / 80 KiB
	at, cfg := startBroker(t)
	if status, out, messages := run(t, append([]string{"topics", "apply", "--partitions", strconv.Itoa(partitions), "--memory-limit", "384MiB",
		"--tick-interval", "500ms", "--idle-horizon", horizon.String()}, at...)...); status != 0 || !strings.Contains(out, fmt.Sprintf("with %d accumulators each", room)) {
		t.Fatalf("topics apply: status %d, %q, %q", status, out, messages)
	}
	w := startAggregate(t, cfg.Brokers[0], limit*9/10)
	publishLayers(t, cfg, keys, runs, room*partitions)

	records := func(label, value string) int { return int(w.sum("oona_aggregate_records_total", label, value)) }
	last, since := 0, time.Now()
	await(t, "all of them to be read", func() bool {
		n := records("verdict", "folded") + records("verdict", "overflowed") + records("verdict", "late")
		if n > last {
			last, since = n, time.Now()
		}
		if time.Since(since) > 5*time.Minute {
			t.Fatalf("%d of %d frames were read, and none of the others in five minutes", n, keys)
		}
		return n >= keys
	})
	if n := records("verdict", "late"); n > 0 {
		t.Logf("%d frames are late", n)
		return true
	}
	folded, sealed := records("verdict", "folded"), records("reason", "sealed")
	if folded != room*partitions || folded+sealed != keys {
		t.Errorf("%d layers were folded and %d sealed out; want %d, the limit, and the rest", folded, sealed, room*partitions)
	}
	await(t, "the windows to close", func() bool { return w.sum("oona_aggregate_open_windows", "", "") == 0 })
	await(t, "the rollups to be on the bus", func() bool { return w.sum("oona_aggregate_pending_messages", "", "") == 0 })
	if rollups := w.sum("oona_aggregate_rollups_total", "", ""); int(rollups) != 2*room*partitions {
		t.Errorf("%v rollups, want two a layer", rollups)
	}
	peak := w.peak()
	t.Logf("%d layers' windows at once, and at most %s of %s", folded, peak, limit)
	if peak > limit {
		t.Errorf("the aggregator had %s of %s", peak, limit)
	}
	return false
}

// publishLayers writes a frame for each of many layers of a run to one partition. The
// first frames have 1,000 seeds and 8 metrics, the others have one seed.
func publishLayers(t *testing.T, cfg kafka.Config, keys, runs, few int) {
	t.Helper()
	publisher, err := kafka.New(cfg, nil).Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	random := rand.New(rand.NewPCG(3, 4))
	frame := func(seeds int) *oona.Frame {
		f := &oona.Frame{Producer: "one", Epoch: oona.MicrosOf(time.Now()), ObservedAt: oona.MicrosOf(time.Now())}
		for i := range seeds {
			f.Seeds, f.States = append(f.Seeds, oona.SeedID(i)), append(f.States, oona.Training)
		}
		for _, name := range []string{"loss", "gradient_norm", "accuracy", "m3", "m4", "m5", "m6", "m7"} {
			values := make([]float32, seeds)
			for i := range values {
				values[i] = float32(random.NormFloat64())
			}
			f.Metrics = append(f.Metrics, oona.Column{Name: name, Values: values})
		}
		return f
	}
	large, small := frame(1000), frame(1)
	const batch = 500
	for from := 0; from < keys; from += batch {
		var messages []*message.Message
		for i := from; i < from+batch; i++ {
			f := large
			if i >= few {
				f = small
			}
			number := i % runs
			f.Run, f.Layer, f.Sequence = oona.RunID(fmt.Sprint("run", number)), oona.LayerID(fmt.Sprint("layer", i)), int64(i)
			msg := message.NewMessage("", avro.AppendFrame(nil, f))
			msg.SetContext(bus.WithTarget(msg.Context(), bus.Target{Partition: int32(number % 2), Directed: true}))
			messages = append(messages, msg)
		}
		if err := publisher.Publish(context.Background(), seedMetrics, messages...); err != nil {
			t.Fatal(err)
		}
	}
}

// aggregator is an aggregator in its own process.
type aggregator struct {
	t       *testing.T
	process *os.Process
	address string
}

func startAggregate(t *testing.T, broker string, limit units.Base2Bytes) *aggregator {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "aggregate")
	if out, err := exec.Command("go", "build", "-o", binary, "../aggregate").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, "--brokers", broker, "--admin-address", "127.0.0.1:0", "--worker", "w0", "--log-format", "json")
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMEMLIMIT=%dB", limit)) // as docs/capacity.md advises
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addresses := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(addresses)
		var said bytes.Buffer
		for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
			said.Write(scanner.Bytes())
			if _, rest, found := strings.Cut(scanner.Text(), `"address":"`); found && len(addresses) == 0 {
				address, _, _ := strings.Cut(rest, `"`)
				addresses <- address
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait() // it was killed
	})
	address, ok := <-addresses
	if !ok {
		t.Fatal("the aggregator ended before it listened")
	}
	return &aggregator{t, cmd.Process, address}
}

// sum adds up the series of a metric that have the given label value, if one is given.
func (a *aggregator) sum(name, label, value string) (sum float64) {
	a.t.Helper()
	response, err := http.Get("http://" + a.address + "/metrics")
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, m := range families[name].GetMetric() {
		fits := label == ""
		for _, l := range m.GetLabel() {
			fits = fits || l.GetName() == label && l.GetValue() == value
		}
		if fits {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// peak returns the peak memory of the process.
func (a *aggregator) peak() units.Base2Bytes {
	a.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.process.Pid))
	if err != nil {
		a.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kibibytes int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kibibytes); n == 1 {
			return units.Base2Bytes(kibibytes) * units.KiB
		}
	}
	a.t.Fatalf("the peak is not in\n%s", status)
	return 0
}

// hopeless is how long a test waits before it fails. It is for a machine that is very busy.
const hopeless = 8 * time.Minute

// await polls for a condition.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(hopeless); !holds(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
