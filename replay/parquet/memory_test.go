package parquet_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/parquet"
	"github.com/morphogenetic/oona/schemas/avro"
)

// wideLog makes frames of 1,000 seeds and 8 metrics while it is read. The layers have frames in turn.
type wideLog struct {
	topic          string
	layers, frames int
}

func (l *wideLog) Extents(context.Context, ...string) (map[string][]bus.Extent, error) {
	return map[string][]bus.Extent{l.topic: {{End: int64(l.frames)}}}, nil
}

func (l *wideLog) Read(_ context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	const seeds, metrics = 1000, 8
	random := rand.New(rand.NewPCG(1, 1))
	f := &oona.Frame{Run: "a", Producer: "rank.0", Epoch: 1_790_000_000_000_000, Seeds: make([]oona.SeedID, seeds), States: make([]oona.State, seeds)}
	for i := range f.Seeds {
		f.Seeds[i] = oona.SeedID(i)
	}
	for m := range metrics {
		values := make([]float32, seeds)
		for i := range values {
			values[i] = random.Float32()
		}
		f.Metrics = append(f.Metrics, oona.Column{Name: fmt.Sprintf("metric.%d", m), Values: values})
	}
	payload := make([]byte, 0, 64<<10)
	for offset := r.From; offset < r.End; offset++ {
		f.Layer, f.Sequence, f.Step = oona.LayerID(fmt.Sprintf("enc.%d", offset%int64(l.layers))), offset, offset/int64(l.layers)
		f.ObservedAt = f.Epoch + oona.Micros(offset)
		payload = avro.AppendFrame(payload[:0], f)
		msg := message.NewMessage("", payload)
		msg.SetContext(bus.WithPosition(context.Background(), bus.Position{Topic: topic, Offset: offset}))
		if err := take(msg); err != nil {
			return err
		}
	}
	return nil
}

// childLayers is set for TestWideChild.
const childLayers = "OONA_TEST_PARQUET_LAYERS"

// TestWideChild is run as a process of its own by TestMemory. It prints the maximum of its memory.
func TestWideChild(t *testing.T) {
	layers, err := strconv.Atoi(os.Getenv(childLayers))
	if err != nil {
		t.Skip("it is run by TestMemory")
	}
	log := &wideLog{testTopics(t).SeedMetrics, layers, 6 * layers}
	output := &parquet.Output{Dir: os.Getenv(childDir), Options: parquet.DefaultOptions()}
	if err := extract(t, log, output); err != nil {
		t.Fatal(err)
	}
	var rows int64
	for _, f := range output.Manifest().Topics[0].Partitions[0].Files {
		rows += f.Rows
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, most, _ := strings.Cut(string(status), "VmHWM:")
	kilobytes, _, _ := strings.Cut(strings.TrimSpace(most), " ")
	fmt.Printf("memory %s %d\n", kilobytes, rows)
}

// A thousand layers of a thousand seeds need less than 512 MB, even if their frames exceed
// Options.HeldValues.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes a wide table to see what memory that takes")
	}
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: the most memory of a process is read from /proc")
	}
	const layers, limit = 1000, 512 << 10 // kB
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWideChild$", "-test.v")
	cmd.Env = append(os.Environ(), childDir+"="+filepath.Join(t.TempDir(), "out"), childLayers+"="+strconv.Itoa(layers))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, said, _ := strings.Cut(string(out), "memory ")
	var kilobytes, rows int64
	if _, err := fmt.Sscanf(said, "%d %d", &kilobytes, &rows); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%d MB for %d rows of %d layers", kilobytes>>10, rows, layers)
	if rows != 6*layers*1000 {
		t.Errorf("%d rows, want %d", rows, 6*layers*1000)
	}
	if kilobytes > limit && !raced() {
		t.Errorf("the process had %d MB, want less than %d", kilobytes>>10, limit>>10)
	}
}

// raced reports whether this program was built with the race detector, which needs memory
// for each byte that it watches.
func raced() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

// Frames of a single seed need much more memory than their values.
func TestMemoryOfSmallFrames(t *testing.T) {
	log := walk(t, 1, 1, 1000, false)
	options := parquet.DefaultOptions()
	options.HeldValues = 20_000
	output := &parquet.Output{Dir: filepath.Join(t.TempDir(), "out"), Options: options}
	if err := extract(t, log, output); err != nil {
		t.Fatal(err)
	}
	if files := len(output.Manifest().Topics[0].Partitions[0].Files); files < 4 {
		t.Errorf("%d files, so that more than 250 frames were held; want 4 at least", files)
	}
}
