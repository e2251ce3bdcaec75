package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/windows"
)

// TestMain runs main if a measurement started this program as another process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == publishFlag || os.Args[1] == ingestFlag || os.Args[1] == floorFlag) {
		main()
		return
	}
	os.Exit(m.Run())
}

// few returns a corpus in which windows close and frames repeat.
func few(t *testing.T) *corpus {
	t.Helper()
	c := newCorpus(16, 25, 0)
	c.encode("bench", windowStart(time.Now()))
	if len(c.payloads) == c.distinct || len(c.payloads) != c.records() || c.distinct != c.frames() {
		t.Fatalf("%d payloads, %d of them frames for the first time; want %d and %d", len(c.payloads), c.distinct, c.records(), c.frames())
	}
	return c
}

func TestEngineFigures(t *testing.T) {
	c := few(t)
	var all figures
	engine, err := newEngineRounds(c)
	if err != nil {
		t.Fatal(err)
	}
	book, err := newTextbook(c, textbookLayers*25)
	if err != nil {
		t.Fatal(err)
	}
	const rounds = 2
	for range rounds {
		for _, measure := range []func(*figures) error{
			func(into *figures) error { return engine.fold(decodeFold, into) }, book.measure,
			func(into *figures) error { return measureReplay(c, into) },
			func(into *figures) error { return measureOpen(c, into) },
			func(into *figures) error { return measureLayers(64, 16, into) },
		} {
			if err := measure(&all); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantFigures(t, &all, rounds, decodeFold, allocations, textbookSpeed, overTextbook, replayRatio, openMemory, layersRatio)
	if engine.folder.rollups == 0 || book.closed == 0 {
		t.Errorf("%d rollups were emitted, the text-book way closed %d windows", engine.folder.rollups, book.closed)
	}
}

func TestBusFigures(t *testing.T) {
	broker, err := embedded.Start(t.Context(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	w := &wire{suffix: "_here", bus: kafka.Config{Brokers: broker.Addrs, ClientID: "bench"}, logger: slog.New(slog.DiscardHandler)}
	c := few(t)
	topics, err := w.topics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.publish(t.Context(), topics.SeedMetrics, c, "bench"); err != nil {
		t.Fatal(err)
	}
	var all figures
	if err := w.measureDrain(t.Context(), topics, c, &all); err != nil {
		t.Fatal(err)
	}
	other := *c
	other.start -= frameInterval * 5 // now one window closes, not two
	if _, err := w.drain(t.Context(), topics, &other, nil); err == nil || !strings.Contains(err.Error(), "want 32 rollups of 404 records") {
		t.Errorf("64 rollups for 32: error is %v", err)
	}
	small, err := w.loadCommits(t.Context(), 2000)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.measureCommits(t.Context(), small.SeedMetrics, 2000, &all); err != nil {
		t.Fatal(err)
	}
	if err := w.measureLatency(t.Context(), volley{500, 5, 100, 10, latencyMiddle, latencyTail, latencyLate}, &all); err != nil {
		t.Fatal(err)
	}
	if err := w.measureFloor(t.Context(), volley{10_000, 5, 1000, 10, floorMiddle, floorTail, latencyLate}, floorMiddle, floorTail, &all); err != nil {
		t.Fatal(err)
	}
	if err := w.measureSustained(t.Context(), c, sustainedSpeed, &all); err != nil {
		t.Fatal(err)
	}
	if err := w.measureSpoolDrain(t.Context(), volley{500, 5, 100, 10, latencyMiddle, latencyTail, latencyLate}, 2000, &all); err != nil {
		t.Fatal(err)
	}
	if err := (&bench{all: &all, logger: w.logger}).measureSpool(t.Context(), 200); err != nil {
		t.Fatal(err)
	}
	wantFigures(t, &all, 1, w.named(readSpeed), w.named(drainSpeed), w.named(drainRatio), w.named(commitsRatio), w.named(latencyMiddle), w.named(latencyTail), w.named(latencyLate), w.named(floorMiddle), w.named(floorTail), w.named(sustainedSpeed),
		w.named(spoolDrainSpeed), w.named(spoolLiveTail), w.named(spoolLiveRatio), spoolAppend, spoolBatch, syncedSpeed, spoolOverDisk)
	for _, forgotten := range []func() error{func() error { return w.forget(topics) }, func() error { return w.forget(small) }} {
		if err := forgotten(); err != nil {
			t.Error(err)
		}
	}
	if left := groups(t, w); len(left) > 0 || len(w.groups) > 0 {
		t.Errorf("groups %v are still there", left)
	}
	if err := kafka.New(w.bus, nil).Check(t.Context(), topics.Specs(partitions)); err == nil {
		t.Error("the topics of a measure are still there after it")
	}
}

// groups returns the consumer groups of the bus.
func groups(t *testing.T, w *wire) map[string]string {
	t.Helper()
	admin, err := sarama.NewClusterAdmin(w.bus.Brokers, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	all, err := admin.ListConsumerGroups()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A group with a member that was killed, and has not left it, is deleted, too.
func TestForgetsGroupsOfTheKilled(t *testing.T) {
	broker, err := embedded.Start(t.Context(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	w := &wire{bus: kafka.Config{Brokers: broker.Addrs, ClientID: "bench"}, logger: slog.New(slog.DiscardHandler)}
	topics, err := w.topics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	member, err := sarama.NewClient(broker.Addrs, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	group := w.group()
	coordinator, err := member.Coordinator(group)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := coordinator.JoinGroup(&sarama.JoinGroupRequest{
		GroupId: group, SessionTimeout: 30_000, ProtocolType: "consumer",
		OrderedGroupProtocols: []*sarama.GroupProtocol{{Name: "range", Metadata: []byte{}}},
	})
	if err != nil || answer.Err != sarama.ErrNoError {
		t.Fatal(err, answer)
	}
	if len(groups(t, w)) != 1 {
		t.Fatalf("groups are %v, want one", groups(t, w))
	}
	if err := w.forget(topics); err != nil {
		t.Error(err)
	}
	if left := groups(t, w); len(left) > 0 {
		t.Errorf("groups %v are still there", left)
	}
}

// A process publishes nothing if its parent has died, or has closed its stdin.
func TestPublishesNothingUntold(t *testing.T) {
	broker, err := embedded.Start(t.Context(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	w := &wire{bus: kafka.Config{Brokers: broker.Addrs, ClientID: "bench"}, logger: slog.New(slog.DiscardHandler)}
	topics, err := w.topics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.begin(t.Context(), publishFlag, topics.SeedMetrics, "--layers", "1", "--steps", "12")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.end(); err == nil {
		t.Error("it ended without an error")
	}
	client, err := sarama.NewClient(broker.Addrs, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for partition := range int32(partitions) {
		if end, err := client.GetOffset(topics.SeedMetrics, partition, sarama.OffsetNewest); err != nil || end != 0 {
			t.Errorf("partition %d ends at %d, %v", partition, end, err)
		}
	}
}

func TestWhatIsNoConfiguration(t *testing.T) {
	whole := config{Rounds: 1, Layers: 1, Steps: 12}
	if err := whole.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*config){
		"--rounds":                   func(c *config) { c.Rounds = 0 },
		"--layers":                   func(c *config) { c.Layers = 0 },
		"--steps":                    func(c *config) { c.Steps = 11 },
		"--only is figs":             func(c *config) { c.Only = []string{"figs"} },
		"--only peers needs --peers": func(c *config) { c.Only = []string{"drain", "peers"} },
	} {
		c := whole
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
}

// If the brokers cannot be reached, bench fails before it measures anything.
func TestBrokersThatAreNotThere(t *testing.T) {
	var out, progress bytes.Buffer
	err := run(t.Context(), &config{Rounds: 1, Layers: 1, Steps: 12, Kafka: []string{"127.0.0.1:1"}}, &out, &progress)
	if !errors.Is(err, sarama.ErrOutOfBrokers) || progress.Len() > 0 || out.Len() > 0 {
		t.Errorf("error is %v, after %q, %q", err, progress.String(), out.String())
	}
}

// There is no figure if a reader misses frames or cannot read them.
func TestWhatIsMissedIsAnError(t *testing.T) {
	for want, spoil := range map[string]func(*corpus){
		"400 frames were folded, want 401": func(c *corpus) { c.distinct++ },
		"400 frames were folded, want 399": func(c *corpus) { c.distinct-- }, // including a repeat
		"frame 3":                          func(c *corpus) { c.payloads[3] = c.payloads[3][:100] },
	} {
		c := few(t)
		spoil(c)
		folder, err := newFolder(manyLayers(len(c.layers)))
		if err != nil {
			t.Fatal(err)
		}
		if err := folder.takeAll(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
}

// There is no figure if frames are in no rollup, or in too many.
func TestWhatDoesNotCloseIsAnError(t *testing.T) {
	for _, wrong := range []func(*folder){
		func(f *folder) { f.frames-- }, func(f *folder) { f.frames++ }, func(f *folder) { f.samples-- },
	} {
		e, err := newEngineRounds(few(t))
		if err != nil {
			t.Fatal(err)
		}
		wrong(e.folder)
		if err := e.fold(decodeFold, nil); err == nil || !strings.Contains(err.Error(), "closed windows") {
			t.Errorf("error is %v", err)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := (&figure{values: c.values}).median(); got != c.want {
			t.Errorf("the median of %v is %v, want %v", c.values, got, c.want)
		}
	}
}

func TestTableAndObject(t *testing.T) {
	var all figures
	for _, x := range []float64{240, 260, 255} {
		all.take(decodeFold, x)
		all.take(latencyTail, x)
	}
	all.takeRatio(figure{name: "ratio"}, decodeFold, textbookSpeed)
	if len(all.list) != 2 {
		t.Error("a ratio was taken of a figure that was not")
	}
	var table bytes.Buffer
	if err := all.print(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"255", "240", "260", "not reached (goal: at most 5)", "  reached (goal: at least 250)"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, table.String())
		}
	}
	var object bytes.Buffer
	if err := writeJSON(&object, thisMachine(), 3, &all); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(object.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got["decode_fold_msamples_core"] != 255.0 || got["rounds"] != 3.0 || got["machine"] == nil {
		t.Errorf("the object is %v", got)
	}
}

func wantFigures(t *testing.T, all *figures, rounds int, want ...figure) {
	t.Helper()
	if len(all.list) != len(want) {
		t.Fatalf("%d figures were taken, want %d", len(all.list), len(want))
	}
	for i, f := range all.list {
		if f.name != want[i].name || len(f.values) != rounds || !(f.median() > 0) {
			t.Errorf("figure %d is %s %v, want %d values of %s", i, f.name, f.values, rounds, want[i].name)
		}
	}
}

// BenchmarkDecodeFold is for profiles of the figure decode_fold_msamples_core.
func BenchmarkDecodeFold(b *testing.B) {
	engine, err := newEngineRounds(newCorpus(1024, 25, 0))
	if err != nil {
		b.Fatal(err)
	}
	var all figures
	for b.Loop() {
		if err := engine.fold(decodeFold, &all); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(all.list[0].median(), "Msamples/s-core")
}

// BenchmarkDecodeFoldSparse is the same for sparse_decode_fold_msamples_core.
func BenchmarkDecodeFoldSparse(b *testing.B) {
	engine, err := newEngineRounds(newCorpus(1024, 25, recordedIdle))
	if err != nil {
		b.Fatal(err)
	}
	var all figures
	for b.Loop() {
		if err := engine.fold(sparseDecodeFold, &all); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(all.list[0].median(), "Msamples/s-core")
}

// BenchmarkReducers folds the same frames with each version of the reducers in turn, dense
// and sparse, to show the cost of the later version. Its figures are M samples/s per core,
// and how much slower the second version is.
func BenchmarkReducers(b *testing.B) {
	for _, c := range []struct {
		name       string
		unmeasured float64
	}{{"dense", 0}, {"sparse", recordedIdle}} {
		b.Run(c.name, func(b *testing.B) {
			frames := newCorpus(1024, 25, c.unmeasured)
			var folders [2]*folder
			for i := range folders {
				cfg := manyLayers(len(frames.layers))
				cfg.Reducer = int32(i + 1)
				var err error
				if folders[i], err = newFolder(cfg); err != nil {
					b.Fatal(err)
				}
			}
			start := windowStart(time.Now())
			var spent [2][]float64 // seconds, by reducer and round
			for round := 0; b.Loop(); round++ {
				frames.encode("bench", start)
				start += frames.span(windows.DefaultConfig().Length)
				for i := range folders {
					i = (i + round) % len(folders)
					used, _, err := metered(func() error { return folders[i].takeAll(frames) })
					if err != nil {
						b.Fatal(err)
					}
					if round > 0 { // the first round is to warm up
						spent[i] = append(spent[i], used.Seconds())
					}
				}
			}
			if len(spent[0]) == 0 {
				b.Skip("more than one round is needed: use -benchtime=10x")
			}
			ratios := make([]float64, len(spent[0]))
			for i := range ratios {
				ratios[i] = spent[1][i] / spent[0][i]
			}
			for i := range spent {
				slices.Sort(spent[i])
				b.ReportMetric(frames.samples()/spent[i][len(spent[i])/2]/1e6, fmt.Sprintf("Msamples/s-reducer-%d", i+1))
			}
			slices.Sort(ratios)
			b.ReportMetric(100*(ratios[len(ratios)/2]-1), "%-more-time")
		})
	}
}
