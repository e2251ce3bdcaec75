package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

const recording = "../../testdata/digits.avro"

// brokers calls test with each available broker: the embedded one, and the Kafka
// that OONA_KAFKA names (make kafka-up), which OONA_REQUIRE_KAFKA=1 demands.
func brokers(t *testing.T, test func(t *testing.T, addresses []string)) {
	t.Run("embedded", func(t *testing.T) {
		broker, err := embedded.Start(t.Context(), embedded.Options{Logger: discard()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := broker.Close(); err != nil {
				t.Error(err)
			}
		})
		test(t, broker.Addrs)
	})
	t.Run("kafka", func(t *testing.T) {
		addresses := os.Getenv("OONA_KAFKA")
		if addresses == "" && os.Getenv("OONA_REQUIRE_KAFKA") == "1" {
			t.Fatal("OONA_REQUIRE_KAFKA=1, and OONA_KAFKA names no brokers")
		}
		if addresses == "" {
			t.Skip("SKIPPED, NOT TESTED ON REAL KAFKA: OONA_KAFKA is empty; run make kafka-up and set it to the addresses that it prints")
		}
		test(t, strings.Split(addresses, ","))
	})
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// testConfig plays the recording at maximum speed, on topics with a unique prefix.
func testConfig(addresses []string) Config {
	cfg := DefaultConfig()
	cfg.Recording = recording
	cfg.Speed = "max"
	cfg.Once = true
	cfg.Kafka = addresses
	cfg.Prefix = fmt.Sprintf("demo-test-%d", time.Now().UnixNano())
	cfg.IngestPort, cfg.AdminPort, cfg.BrokerPort, cfg.TensorsPort = 0, 0, 0, 0
	cfg.Window = time.Second
	cfg.Idle = 2 * time.Second
	cfg.Patience, cfg.Grace = hopeless/2, hopeless/2
	return cfg
}

// hopeless is how long a test waits before it fails. It is for a machine that is very busy.
const hopeless = 10 * time.Minute

// inTime runs a test in which no frame may be late, with a configuration of its own. Windows
// close when their producer is silent for the idle horizon. On a busy machine that happens
// before all of their frames are published, so a test that finds late frames has shown
// nothing. It returns true, and is tried again with a longer horizon.
func inTime(t *testing.T, addresses []string, test func(t *testing.T, ctx context.Context, cfg Config) (late bool)) {
	t.Helper()
	for _, idle := range []time.Duration{2 * time.Second, 10 * time.Second, 50 * time.Second} {
		cfg, late := testConfig(addresses), false
		cfg.Idle = idle
		t.Run("idle after "+idle.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), hopeless)
			defer cancel()
			late = test(t, ctx, cfg)
		})
		if !late {
			return
		}
	}
	t.Error("frames are late")
}

// startLoaded starts the services and loads the recording.
func startLoaded(t *testing.T, ctx context.Context, cfg Config, out io.Writer) *services {
	t.Helper()
	s, err := start(ctx, nil, cfg, out, discard())
	if err != nil {
		t.Fatal(err)
	}
	if s.recording, err = load(cfg); err != nil {
		t.Fatal(err)
	}
	return s
}

// total is the expected sum of a layer's rollups.
type total struct {
	frames, readings int64
	metrics          map[string]*metricTotal
}

type metricTotal struct {
	count, notMeasured, infinite int64
	sum, absolute, least, most   float64
}

// oracle adds the recording up, layer by layer, with plain loops.
func oracle(t *testing.T) (layers map[oona.LayerID]*total, frames int64) {
	t.Helper()
	file, err := os.Open(recording)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	reader, err := avro.NewRecordingReader(bufio.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	layers = make(map[oona.LayerID]*total)
	for {
		entry, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return layers, frames
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry.Frame == nil {
			continue
		}
		frames++
		sum := layers[entry.Frame.Layer]
		if sum == nil {
			sum = &total{metrics: make(map[string]*metricTotal)}
			layers[entry.Frame.Layer] = sum
		}
		sum.add(entry.Frame)
	}
}

func (s *total) add(f *oona.Frame) {
	s.frames++
	s.readings += int64(len(f.Seeds))
	for _, c := range f.Metrics {
		m := s.metrics[c.Name]
		if m == nil {
			m = &metricTotal{least: math.Inf(1), most: math.Inf(-1)}
			s.metrics[c.Name] = m
		}
		for _, v := range c.Values {
			x := float64(v)
			switch {
			case math.IsNaN(x):
				m.notMeasured++
			case math.IsInf(x, 0):
				m.infinite++
			default:
				m.count++
				m.sum += x
				m.absolute += math.Abs(x)
				m.least, m.most = min(m.least, x), max(m.most, x)
			}
		}
	}
}

// The recorded run passes all services, and no frame is lost, counted twice or
// counted wrong.
func TestRecordingReachesPrometheus(t *testing.T) {
	t.Parallel()
	want, frames := oracle(t)
	if len(want) < 3 || frames < 100 {
		t.Fatalf("the recording has %d layers and %d frames: that proves little", len(want), frames)
	}
	brokers(t, func(t *testing.T, addresses []string) {
		inTime(t, addresses, func(t *testing.T, ctx context.Context, cfg Config) (late bool) {
			return recordingReaches(t, ctx, cfg, want, frames)
		})
	})
}

func recordingReaches(t *testing.T, ctx context.Context, cfg Config, want map[oona.LayerID]*total, frames int64) (late bool) {
	t.Helper()
	var screen bytes.Buffer
	s := startLoaded(t, ctx, cfg, &screen)
	report, err := s.play(ctx, cfg, watch.Screen{Out: &screen})
	if err != nil {
		t.Fatal(err)
	}
	if report.Late == 0 {
		checkReport(t, report, frames)
		rollups := readRollups(t, s.bus, s.topics)
		checkRollups(t, rollups, want)
		for _, r := range rollups { // the logs begin as oona topics apply writes them
			if r.Generation != 1 || r.Reducer != windows.Reducer || r.Catalogue == (oona.CatalogueHash{}) || r.Trigger.Incarnation == 0 {
				t.Fatalf("a rollup is of generation %d, reducer %d, catalogue %s, trigger %+v", r.Generation, r.Reducer, r.Catalogue, r.Trigger)
			}
		}
		checkMetrics(t, s.adminURL, want)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if report.Late == 0 {
		if !strings.Contains(screen.String(), "window closed") {
			t.Errorf("no closed window was shown:\n%s", screen.String())
		}
	}
	return report.Late > 0
}

// Records that other clients write without ingest, and that cannot be folded, are
// counted and kept with a reason. The run is folded completely all the same.
func TestBadRecordsAreCounted(t *testing.T) {
	t.Parallel()
	_, frames := oracle(t)
	brokers(t, func(t *testing.T, addresses []string) {
		inTime(t, addresses, func(t *testing.T, ctx context.Context, cfg Config) (late bool) {
			return badRecords(t, ctx, cfg, frames)
		})
	})
}

func badRecords(t *testing.T, ctx context.Context, cfg Config, frames int64) (late bool) {
	t.Helper()
	s := startLoaded(t, ctx, cfg, io.Discard)
	before, settled, err := s.settle(ctx, false, cfg.Idle)
	if err != nil || !settled {
		t.Fatalf("settled is %v: %v", settled, err)
	}
	audit, err := s.startAudit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	writeBadRecords(t, s)
	played, err := s.repeat(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	after, settled, err := s.settle(ctx, true, cfg.Idle)
	if err != nil || !settled {
		t.Fatalf("settled is %v: %v", settled, err)
	}
	r := before.until(after, played)
	r.Tensors = audit.finish(ctx, s.limit(true, cfg.Idle), r.Records)
	if err := s.auditEvents(ctx, r); err != nil {
		t.Error(err)
	}
	r.reconcile(true)
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if r.Late > 0 {
		return true
	}
	if !r.Agree {
		t.Errorf("the sums do not agree: %+v", r.Checks)
	}
	if r.Dead != 3 || r.Quarantined != 3 || r.Duplicate != 1 || r.Overflowed != 1 || r.Late != 0 || r.Folded != frames+1 {
		t.Errorf("of %d frames and 9 records past ingest: %+v", frames, r)
	}
	return false
}

// The largest possible rollup, of 64 metrics with samples in every bucket, is
// delivered like any other and delays no other.
func TestWidestRollup(t *testing.T) {
	t.Parallel()
	brokers(t, func(t *testing.T, addresses []string) { inTime(t, addresses, widestRollup) })
}

func widestRollup(t *testing.T, ctx context.Context, cfg Config) (late bool) {
	t.Helper()
	s, err := start(ctx, nil, cfg, io.Discard, discard())
	if err != nil {
		t.Fatal(err)
	}
	const frames, seeds, metrics = 8, 3800, 64
	now := oona.MicrosOf(time.Now())
	random := rand.New(rand.NewPCG(1, 2))
	wide := oona.Frame{Run: "wide", Layer: "l", Producer: "p", Epoch: now, ObservedAt: now, Seeds: make([]oona.SeedID, seeds), States: make([]oona.State, seeds)}
	for i := range wide.Seeds {
		wide.Seeds[i] = oona.SeedID(i)
	}
	for m := range metrics {
		wide.Metrics = append(wide.Metrics, oona.Column{Name: fmt.Sprintf("m%d", m), Values: make([]float32, seeds)})
	}
	for n := range frames {
		wide.Sequence = int64(n)
		for _, c := range wide.Metrics {
			for i := range c.Values {
				c.Values[i] = math.Float32frombits(random.Uint32())
			}
		}
		response, err := http.Post(s.ingestURL+"/v1/frames", "application/avro", bytes.NewReader(avro.AppendFrame(nil, &wide)))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Fatalf("ingest answers %s", response.Status)
		}
	}
	m, settled, err := s.settle(ctx, true, cfg.Idle)
	if err != nil || !settled {
		t.Fatalf("settled is %v: %v", settled, err)
	}
	defer func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}()
	if m.aggregate.Late > 0 {
		return true
	}
	if m.aggregate.Folded != frames || m.export.Rollups != m.aggregate.Rollups || m.rollups == 0 {
		t.Errorf("%+v", m)
	}
	largest := 0
	for _, r := range readRollups(t, s.bus, s.topics) {
		largest = max(largest, len(avro.AppendRollup(nil, &r.Rollup)))
	}
	if largest < 2<<20 {
		t.Errorf("the largest rollup has %d bytes: that is within Kafka's default limit, and proves nothing", largest)
	}
	return false
}

// writeBadRecords writes a good frame, a repeat of it, the same identity with
// other bytes, and frames that no window can take.
func writeBadRecords(t *testing.T, s *services) {
	t.Helper()
	now := oona.MicrosOf(time.Now())
	good := oona.Frame{
		Run: "past-ingest", Layer: "l", Producer: "p", Epoch: now, Sequence: 1, ObservedAt: now,
		Seeds: []oona.SeedID{0}, States: []oona.State{oona.Training}, Metrics: []oona.Column{{Name: "m", Values: []float32{1}}},
	}
	with := func(change func(*oona.Frame)) []byte {
		f := good
		change(&f)
		return avro.AppendFrame(nil, &f)
	}
	wide := make([]oona.SeedID, oona.DefaultFrameLimits.Seeds+1)
	for i := range wide {
		wide[i] = oona.SeedID(i)
	}
	publisher, err := s.bus.Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	for _, payload := range [][]byte{
		avro.AppendFrame(nil, &good),
		avro.AppendFrame(nil, &good),
		with(func(f *oona.Frame) { f.Step = 9 }),
		with(func(f *oona.Frame) { f.Sequence, f.ObservedAt = 2, now+3600e6 }),
		with(func(f *oona.Frame) { f.Sequence, f.ObservedAt = 3, now-2*86400e6 }),
		[]byte("not a frame"),
		with(func(f *oona.Frame) { f.States = []oona.State{99} }),
		with(func(f *oona.Frame) { f.Layer = "a\"b\n" }),
		with(func(f *oona.Frame) { f.Seeds, f.States, f.Metrics = wide, make([]oona.State, len(wide)), nil }),
	} {
		msg := bus.NewMessage(payload, bus.Target{Key: []byte("k")})
		if err := publisher.Publish(context.Background(), s.topics.SeedMetrics, msg); err != nil {
			t.Fatal(err)
		}
	}
	noEvent := bus.NewMessage([]byte("not an event"), bus.Target{Key: []byte("k")})
	if err := publisher.Publish(context.Background(), s.topics.Culled, noEvent); err != nil {
		t.Fatal(err)
	}
}

func checkReport(t *testing.T, r *Report, frames int64) {
	t.Helper()
	if !r.Agree {
		t.Errorf("the sums do not agree: %+v", r.Checks)
	}
	if r.Sent != frames || r.Acknowledged != frames || r.Accepted != frames || r.Records != frames || r.Folded != frames {
		t.Errorf("of %d frames sent %d, acknowledged %d, accepted %d, on the topic %d, folded %d", frames, r.Sent, r.Acknowledged, r.Accepted, r.Records, r.Folded)
	}
	if r.Late+r.Duplicate+r.Quarantined+r.Overflowed+r.Dead != 0 {
		t.Errorf("a clean run has side records: %+v", r)
	}
	if r.RollupsEmitted == 0 || r.OpenWindows != 0 {
		t.Errorf("%d rollups, %d windows open", r.RollupsEmitted, r.OpenWindows)
	}
}

// readRollup is a rollup as it came from its topic.
type readRollup struct {
	oona.Rollup
	partition int32
}

// readRollups reads both rollup topics from their beginning to their end.
func readRollups(t *testing.T, b bus.Bus, topics oona.Topics) []readRollup {
	t.Helper()
	var rollups []readRollup
	for _, group := range []oona.Group{oona.Health, oona.Performance} {
		for _, msg := range readTopic(t, b, topics.Rollup(group)) {
			at, err := bus.PositionOf(msg)
			if err != nil {
				t.Fatal(err)
			}
			r := readRollup{partition: at.Partition}
			if _, err := avro.DecodeRollup(msg.Payload, &r.Rollup); err != nil {
				t.Fatal(err)
			}
			rollups = append(rollups, r)
		}
	}
	return rollups
}

// readTopic returns what a topic holds now.
func readTopic(t *testing.T, b bus.Bus, topic string) (all []*message.Message) {
	t.Helper()
	extents, err := b.Extents(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for p, e := range extents[topic] {
		err := b.Read(t.Context(), topic, bus.Range{Partition: int32(p), End: e.End}, func(msg *message.Message) error {
			all = append(all, msg)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func checkRollups(t *testing.T, rollups []readRollup, want map[oona.LayerID]*total) {
	t.Helper()
	got := make(map[oona.LayerID]*total)
	for i := range rollups {
		r := &rollups[i]
		if r.Hash != r.ContentHash() {
			t.Errorf("a rollup of %s differs from its hash", r.Layer)
		}
		sum := got[r.Layer]
		if sum == nil {
			sum = &total{metrics: make(map[string]*metricTotal)}
			got[r.Layer] = sum
		}
		if r.Group == oona.Health {
			sum.frames += r.Frames
			sum.readings += r.Readings
		}
		for _, m := range r.Metrics {
			into := sum.metrics[m.Name]
			if into == nil {
				into = &metricTotal{least: math.Inf(1), most: math.Inf(-1)}
				sum.metrics[m.Name] = into
			}
			into.count += m.Count
			into.notMeasured += m.NotMeasured
			into.infinite += m.Infinite
			into.sum += m.Sum
			if m.Count > 0 {
				into.least, into.most = min(into.least, m.Min), max(into.most, m.Max)
			}
		}
	}
	if len(got) != len(want) {
		t.Errorf("rollups of %d layers, want %d", len(got), len(want))
	}
	for layer, w := range want {
		g := got[layer]
		if g == nil {
			t.Errorf("layer %s has no rollup", layer)
			continue
		}
		if g.frames != w.frames || g.readings != w.readings {
			t.Errorf("layer %s: %d frames, %d readings; want %d, %d", layer, g.frames, g.readings, w.frames, w.readings)
		}
		for name, wm := range w.metrics {
			gm := g.metrics[name]
			if gm == nil {
				t.Errorf("layer %s has no %s", layer, name)
				continue
			}
			if gm.count != wm.count || gm.notMeasured != wm.notMeasured || gm.infinite != wm.infinite || wm.count > 0 && (gm.least != wm.least || gm.most != wm.most) {
				t.Errorf("layer %s, %s: got %+v, want %+v", layer, name, *gm, *wm)
			}
			if math.Abs(gm.sum-wm.sum) > 1e-9*wm.absolute {
				t.Errorf("layer %s, %s: sum %v, want %v", layer, name, gm.sum, wm.sum)
			}
		}
	}
}

// checkMetrics scrapes the exporter as Prometheus does.
func checkMetrics(t *testing.T, url string, want map[oona.LayerID]*total) {
	t.Helper()
	response, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	frames := make(map[string]float64)
	for _, m := range families["kasmina_layer_frames_total"].GetMetric() {
		frames[label(m, "layer")] += m.GetCounter().GetValue()
	}
	for layer, w := range want {
		if frames[string(layer)] != float64(w.frames) {
			t.Errorf("Prometheus reads %v frames of layer %s, want %d", frames[string(layer)], layer, w.frames)
		}
	}
}

func label(m *dto.Metric, name string) string {
	for _, pair := range m.GetLabel() {
		if pair.GetName() == name {
			return pair.GetValue()
		}
	}
	return ""
}

// A report that does not add up must say so.
func TestReconcileNoticesWhatIsMissing(t *testing.T) {
	whole := Report{Sent: 10, Acknowledged: 9, Refused: 1, Accepted: 9, Records: 9, Folded: 6, Duplicate: 1, Late: 1, Dead: 1,
		SideRecords: SideRecords{Late: 1, Dead: 1}, RollupsEmitted: 4, RollupsOnBus: 4, RollupsRead: 4,
		TensorsSent: 5, ClaimsAccepted: 2, Tensors: TensorCounts{Inline: 3, Claimed: 2, Verified: 2},
		EventsRecorded: 3, EventsSent: 4, EventsAcknowledged: 3, EventsAccepted: 4, EventsOnBus: 4, EventsRead: 3, RunsEnded: 1, RunsEndedRead: 1}
	whole.reconcile(true)
	if !whole.Agree {
		t.Fatalf("a whole report does not agree: %+v", whole.Checks)
	}
	bounds := 0
	for _, c := range whole.Checks {
		if c.AtMost {
			bounds++
		}
		if c.AtMost != strings.Contains(c.Claim, "<=") {
			t.Errorf("%q is a bound: %t", c.Claim, c.AtMost)
		}
	}
	if len(whole.Checks) != 21 || bounds != 9 {
		t.Errorf("%d checks with %d bounds; README.md says 12 sums and 9 bounds", len(whole.Checks), bounds)
	}
	for name, spoil := range map[string]func(*Report){
		"an answer is missing":            func(r *Report) { r.Acknowledged-- },
		"acknowledged, never accepted":    func(r *Report) { r.Accepted = 8 },
		"accepted, not on the topic":      func(r *Report) { r.Records = 8 },
		"a record is not counted":         func(r *Report) { r.Folded-- },
		"late, not on the late topic":     func(r *Report) { r.SideRecords.Late = 0 },
		"a dead letter too many":          func(r *Report) { r.SideRecords.Dead = 2 },
		"a rollup did not reach the bus":  func(r *Report) { r.RollupsOnBus = 3 },
		"a rollup was not read":           func(r *Report) { r.RollupsRead = 3 },
		"a tensor is not on the topic":    func(r *Report) { r.Tensors.Inline = 2 },
		"a claim is not on the topic":     func(r *Report) { r.Tensors.Claimed, r.Tensors.Verified, r.Tensors.Inline = 1, 1, 4 },
		"a tensor was not read back":      func(r *Report) { r.Tensors.Verified = 1 },
		"an event was not sent":           func(r *Report) { r.EventsSent = 2 },
		"an event was not accepted":       func(r *Report) { r.EventsAccepted = 3 },
		"an event is not on its topic":    func(r *Report) { r.EventsOnBus = 3 },
		"an event is wrong":               func(r *Report) { r.EventFaults = 1 },
		"an event was not read back":      func(r *Report) { r.EventsRead = 2 },
		"an event was not sent, but read": func(r *Report) { r.EventsRead = 5 },
		"all events were refused": func(r *Report) {
			r.EventsAcknowledged, r.EventsAccepted, r.EventsOnBus, r.EventsRead = 0, 0, 0, 0
		},
		"the recording was read without its events": func(r *Report) {
			r.EventsSent, r.EventsAcknowledged, r.EventsAccepted, r.EventsOnBus, r.EventsRead = 0, 0, 0, 0, 0
		},
		"the end of a run was not read back": func(r *Report) { r.RunsEndedRead = 0 },
		"a window is open":                   func(r *Report) { r.OpenWindows = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			r := whole
			spoil(&r)
			r.reconcile(true)
			if r.Agree {
				t.Errorf("agrees: %+v", r.Checks)
			}
			var text strings.Builder
			if err := r.Print(&text); err != nil || !strings.Contains(text.String(), "DISAGREE") {
				t.Errorf("Print says %q, %v", text.String(), err)
			}
		})
	}
}
