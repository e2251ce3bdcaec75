package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/schemas/avro"
)

// watched is a broker with records.
type watched struct {
	t         *testing.T
	brokers   string
	topics    oona.Topics
	publisher bus.PinnedPublisher
}

func newWatched(t *testing.T) *watched {
	t.Helper()
	_, cfg := startBroker(t)
	w := &watched{t: t, brokers: cfg.Brokers[0]}
	var err error
	if w.topics, err = oona.NewTopics(oona.DefaultPrefix); err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.New(cfg, nil).Apply(t.Context(), append(w.topics.Specs(1), w.topics.RawSpecs(1)...)); err != nil {
		t.Fatal(err)
	}
	if w.publisher, err = kafka.New(cfg, nil).Publisher(bus.PublisherOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.publisher.Close() })
	return w
}

// withKey is the name under which publish expects the key instead of a header.
const withKey = "$key"

func (w *watched) publish(topic string, value []byte, metadata ...string) {
	w.t.Helper()
	msg := message.NewMessage("", value)
	for i := 0; i+1 < len(metadata); i += 2 {
		if metadata[i] == withKey {
			msg.SetContext(bus.WithTarget(msg.Context(), bus.Target{Key: []byte(metadata[i+1])}))
			continue
		}
		msg.Metadata.Set(metadata[i], metadata[i+1])
	}
	if err := w.publisher.Publish(w.t.Context(), topic, msg); err != nil {
		w.t.Fatal(err)
	}
}

// watch returns the lines that are printed for the first records of a topic.
func (w *watched) watch(address, count string, more ...string) []string {
	w.t.Helper()
	status, out, messages := run(w.t, append([]string{"watch", address, "--brokers", w.brokers, "--from=beginning", "--count", count}, more...)...)
	if status != 0 || messages != "" {
		w.t.Fatalf("watch %s: status %d, %s", address, status, messages)
	}
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n")
}

// has checks that each line has its texts.
func (w *watched) has(lines []string, texts ...[]string) {
	w.t.Helper()
	if len(lines) != len(texts) {
		w.t.Fatalf("%d lines, want %d:\n%s", len(lines), len(texts), strings.Join(lines, "\n"))
	}
	for i, line := range lines {
		for _, text := range texts[i] {
			if !strings.Contains(line, text) {
				w.t.Errorf("line %d has not %s:\n%s", i, text, line)
			}
		}
	}
}

func watchedFrame(run oona.RunID, layer oona.LayerID, sequence int64) *oona.Frame {
	return &oona.Frame{
		Run: run, Layer: layer, Producer: "p", Epoch: 1_790_000_000_000_000, Sequence: sequence, ObservedAt: 1_790_000_001_000_000, Step: 7,
		Seeds: []oona.SeedID{3, 4}, States: []oona.State{oona.Training, oona.Dormant},
		Metrics: []oona.Column{{Name: "loss", Values: []float32{0.5, float32(math.NaN())}}},
	}
}

func TestWatchFrames(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	metrics := w.topics.SeedMetrics
	w.publish(metrics, avro.AppendFrame(nil, watchedFrame("one", "enc.0", 0)), oona.HeaderPath, "ingest-1")
	w.publish(metrics, avro.AppendTick(nil, oona.Tick{Worker: "w", WrittenAt: 1_790_000_002_000_000}), oona.HeaderRecord, oona.TickRecord)
	c := oona.WindowConfiguration{Generation: 4, Length: 10_000_000, Reducer: 1}
	w.publish(metrics, avro.AppendConfiguration(nil, c), oona.HeaderRecord, oona.ConfigurationRecord)
	w.publish(metrics, []byte("later"), oona.HeaderRecord, "later/9")
	w.publish(metrics, avro.AppendFrame(nil, watchedFrame("two", "enc.1", 1)))
	w.publish(metrics, []byte("neither"))

	all := w.watch("kasmina/telemetry/seed/+/+/metrics", "6")
	w.has(all,
		[]string{
			`{"address":"kasmina/telemetry/seed/enc.0/+/metrics","partition":0,"offset":0,`, `"kind":"frame","path":"ingest-1"`,
			`"frame":{"run_id":"one","layer_id":"enc.0","producer_id":"p","producer_epoch":1790000000000000,"sequence":0,"observed_at":1790000001000000,"step":7,"seed_ids":[3,4],"states":["TRAINING","DORMANT"],"metrics":[{"name":"loss","values":[0.5,null]}]}}`,
		},
		[]string{`"kind":"tick"`, `"tick":{"worker":"w","written_at":"2026-09-21T14:13:22Z"}`},
		[]string{`"kind":"configuration"`, `"generation":4`, `"length":"10s"`},
		[]string{`"kind":"undecoded"`, `of a kind that this version does not know: later/9`, `"bytes":5,"head":"6c61746572"`},
		[]string{`"run_id":"two"`},
		[]string{`"kind":"undecoded"`, `"head":"6e656974686572"`},
	)
	w.has(w.watch("kasmina/telemetry/seed/enc.1/+/metrics", "1"), []string{`"offset":4`})
	w.has(w.watch(metrics, "1", "--run=two"), []string{`"offset":4`})
	w.has(w.watch(metrics, "1", "--layer=enc.1"), []string{`"offset":4`})
	w.has(w.watch("kasmina/telemetry/seed/+/4/metrics", "2"),
		[]string{`kasmina/telemetry/seed/enc.0/4/metrics`, `"seed_ids":[4],"states":["DORMANT"],"metrics":[{"name":"loss","values":[null]}]`}, []string{`"offset":4`})
	w.has(w.watch(metrics, "6", "--table"),
		[]string{"0/0 ", "one", "enc.0", "p#0  step 7  2 seeds 1 DORMANT 1 TRAINING  loss 0.5"},
		[]string{"tick of w"}, []string{"configuration: generation 4", " length=10s"}, []string{"5 bytes: 6c61746572  ("}, []string{"two"}, []string{"7 bytes: 6e656974686572"})
}

func TestWatchRollups(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	rollup := func(layer oona.LayerID, offset int64, index int32) []byte {
		r := &oona.Rollup{Run: "one", Layer: layer, Start: oona.Micros(offset), End: 10_000_000, Trigger: oona.Trigger{Offset: offset, Index: index}, Frames: 5}
		r.Seeds.Seen, r.Seeds.Active, r.Seeds.ByState[oona.Training] = 3, 2, 2
		r.Metrics = []oona.MetricSummary{{Name: "loss", Count: 4, Sum: 8, Min: 1, Max: 3, Mean: 2, M2: 4, Worst: []oona.SeedValue{{Seed: 9, Value: 3}}}}
		r.Hash = r.ContentHash()
		return avro.AppendRollup(nil, r)
	}
	for _, emitted := range []struct {
		layer  oona.LayerID
		offset int64
		index  int32
	}{{"a", 7, 0}, {"b", 7, 1}, {"a", 9, 0}, {"b", 7, 1}, {"a", 9, 0}, {"b", 9, 1}} { // as after a restart
		w.publish(w.topics.LayerHealth, rollup(emitted.layer, emitted.offset, emitted.index))
	}
	w.has(w.watch("kasmina/telemetry/layer/+/health", "4"),
		[]string{`"address":"kasmina/telemetry/layer/a/health"`, `"offset":0`, `"group":"health"`, `"seeds":{"seen":3,"active":2,"by_state":{"TRAINING":2}}`, `"mean":2,"stddev":1`, `"worst":[{"seed_id":9,"value":3}]`},
		[]string{`"offset":1`}, []string{`"offset":2`}, []string{`"offset":5`, `"trigger_offset":9,"trigger_index":1`})
	w.has(w.watch("kasmina/telemetry/layer/b/health", "2"), []string{`"offset":1`}, []string{`"offset":5`})
	w.has(w.watch("kasmina/telemetry/layer/b/health", "3", "--all", "--table"),
		[]string{"0/1", "5 frames  2 of 3 seeds active: 2 TRAINING  loss 2 [1, 3]"}, []string{"0/3", "REPEAT"}, []string{"0/5"})
}

// Without an address, watch shows the windows of the layers, here as lines.
func TestWatchLayers(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	for n := range int64(3) {
		r := &oona.Rollup{Run: "one", Layer: "a", Start: oona.Micros(n) * 10e6, End: oona.Micros(n+1) * 10e6, Trigger: oona.Trigger{Offset: n}}
		r.Metrics = []oona.MetricSummary{{Name: "loss", Count: 1, Mean: 2}}
		r.Hash = r.ContentHash()
		w.publish(w.topics.LayerHealth, avro.AppendRollup(nil, r))
	}
	status, out, messages := run(t, "watch", "--brokers", w.brokers, "--from=beginning", "--count=2", "--metric=loss", "--layer=a", "--run=one")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); status != 0 || messages != "" || len(lines) != 2 || !strings.Contains(lines[1], "loss 2") {
		t.Errorf("status %d, %q, %q", status, messages, out)
	}
}

// Watch shows the fields that reducer 2 added, a speed only if it is known, and rollups
// that readers drop although they are not repeats.
func TestWatchRollupsOfANewIncarnation(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	publish := func(second, incarnation, offset int64, change func(*oona.Rollup)) {
		r := &oona.Rollup{
			Group: oona.Performance, Run: "one", Layer: "a", Start: oona.Micros(second) * 1e6, End: oona.Micros(second+10) * 1e6,
			Trigger: oona.Trigger{Incarnation: oona.Incarnation(incarnation), Offset: offset}, FirstOffset: offset - 5, LastOffset: offset - 1,
			Reducer: 2, Catalogue: oona.CatalogueHash{0xab}, Rates: oona.Rates{StepsPerSecond: 5, Steps: 40, StepTime: 8_000_000},
			Metrics: []oona.MetricSummary{{Name: "loss", Count: 1, NotMeasuredActive: 2, Worst: []oona.SeedValue{{Seed: 9, Value: 3, Offset: 17}}}},
		}
		change(r)
		r.Hash = r.ContentHash()
		w.publish(w.topics.LayerPerformance, avro.AppendRollup(nil, r))
	}
	same := func(*oona.Rollup) {}
	publish(0, 0, 900, same)
	publish(10, 7, 20, same)
	publish(10, 7, 20, same)
	publish(10, 7, 20, func(r *oona.Rollup) { r.Frames++ })
	publish(0, 7, 24, same)
	publish(20, 0, 910, same)
	publish(20, 7, 30, func(r *oona.Rollup) { r.Rates = oona.Rates{} })
	publish(30, 7, 40, func(r *oona.Rollup) { r.Reducer, r.Catalogue = 1, oona.CatalogueHash{} })

	address := "kasmina/telemetry/layer/a/performance"
	lines := w.watch(address, "7")
	w.has(lines,
		[]string{`"reducer":2,"catalogue":"ab00000000000000"`, `"steps_per_second":5,"steps":40,"step_seconds":8`, `"not_measured_active":2`, `"worst":[{"seed_id":9,"value":3,"offset":17}]`},
		[]string{`"new_incarnation":true`, `"incarnation":7,"trigger_offset":20`},
		[]string{`"dropped":"conflict"`},
		[]string{`"dropped":"remade"`},
		[]string{`"dropped":"behind"`, `"trigger_offset":910`},
		[]string{`"steps":0,"step_seconds":0`},
		[]string{`"steps_per_second":5,"delay_seconds":0`, `"reducer":1`, `"worst":[{"seed_id":9,"value":3}]`},
	)
	if strings.Contains(lines[5], "steps_per_second") {
		t.Errorf("a speed that is not known is shown: %s", lines[5])
	}
	w.has(w.watch(address, "8", "--all", "--table"),
		[]string{"5 steps/s"}, []string{"NEW INCARNATION  one"}, []string{"REPEAT  one"}, []string{"CONFLICT  one"}, []string{"REMADE  one"},
		[]string{"BEHIND  one"}, []string{"0 frames  0 readings/s"}, []string{"5 steps/s"})
}

func TestWatchIncarnationsAndSettings(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	start := oona.IncarnationStart{Number: 1_790_000_000_000_000, PreviousEnd: 900, Reason: "its end was lost", Worker: "oona", WrittenAt: 1_790_000_000_000_000}
	w.publish(w.topics.SeedMetrics, avro.AppendIncarnation(nil, start), oona.HeaderRecord, oona.IncarnationRecord)
	w.publish(w.topics.SeedMetrics, []byte("cut"), oona.HeaderRecord, oona.IncarnationRecord)
	w.has(w.watch(w.topics.SeedMetrics, "2"),
		[]string{`"kind":"incarnation","incarnation":{"number":1790000000000000,"previous_end":900,"reason":"its end was lost","worker":"oona","written_at":"2026-09-21T14:13:20Z"}`},
		[]string{`"kind":"undecoded"`, `begins with 63 75`})
	w.has(w.watch(w.topics.SeedMetrics, "1", "--table"),
		[]string{"incarnation 1790000000000000 begins after one that was read up to offset 900: its end was lost (written by oona at 2026-09-21T14:13:20Z)"})

	if _, err := kafka.New(kafka.Config{Brokers: []string{w.brokers}, ClientID: "test"}, nil).Apply(t.Context(), []oona.TopicSpec{w.topics.SettingsSpec()}); err != nil {
		t.Fatal(err)
	}
	c := oona.WindowConfiguration{Generation: 4, Length: 10_000_000, Reducer: 2, Catalogue: oona.CatalogueHash{0xab}}
	w.publish(w.topics.Settings, []byte("version: 1\nmetrics:\n  - {name: loss, help: \"\x1b[31m\"}\n"), withKey, "catalogue/ab00000000000000")
	w.publish(w.topics.Settings, avro.AppendConfiguration(nil, c), withKey, "windows/0")
	w.publish(w.topics.Settings, avro.AppendIncarnation(nil, start), withKey, "incarnation/kasmina.telemetry.seed.metrics/0")
	w.publish(w.topics.Settings, nil, withKey, "windows/1")
	w.publish(w.topics.Settings, []byte{0xff, 0xfe}, withKey, "later/1")
	w.has(w.watch(w.topics.Settings, "5"),
		[]string{`"address":"kasmina.oona.settings"`, `"kind":"setting","setting":{"key":"catalogue/ab00000000000000","text":"version: 1\nmetrics:\n`},
		[]string{`"configuration":{"generation":4`, `"reducer":2,"catalogue":"ab00000000000000"}`, `"setting":{"key":"windows/0"}`},
		[]string{`"incarnation":{"number":1790000000000000`}, []string{`"setting":{"key":"windows/1","deleted":true}`},
		[]string{`"setting":{"key":"later/1"},"undecoded":{"bytes":2,"head":"fffe"}`})
	w.has(w.watch(w.topics.Settings, "5", "--table"),
		[]string{"catalogue/ab00000000000000: 52 bytes of text"}, []string{"    version: 1"}, []string{"    metrics:"}, []string{`      - {name: loss, help: " [31m"}`},
		[]string{"windows/0: configuration: generation 4", "reducer=2 catalogue=ab00000000000000"}, []string{"incarnation 1790000000000000 begins"},
		[]string{"windows/1: deleted"}, []string{"later/1: 2 bytes: fffe"})
}

func TestWatchSideTopics(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	why := []string{
		oona.HeaderErrorException, "late", oona.HeaderErrorMessage, "its window was closed", oona.HeaderErrorTopic, w.topics.SeedMetrics,
		oona.HeaderErrorPartition, "2", oona.HeaderErrorOffset, "40", oona.HeaderErrorStage, "aggregate",
	}
	w.publish(w.topics.Late, avro.AppendFrame(nil, watchedFrame("one", "enc.0", 0)), why...)
	w.has(w.watch(w.topics.Late, "1"), []string{`"kind":"frame"`, `"side":{"reason":"late","message":"its window was closed","topic":"kasmina.telemetry.seed.metrics","partition":"2","offset":"40","stage":"aggregate"}`})
	w.publish(w.topics.Late, avro.AppendFrame(nil, watchedFrame("two", "enc.0", 0)), append(why, oona.HeaderErrorIncarnation, "7")...)
	w.has(w.watch(w.topics.Late, "1", "--run=two"), []string{`"offset":"40","incarnation":"7"`})
	w.has(w.watch(w.topics.Late, "1", "--run=two", "--table"), []string{"offset 40 of incarnation 7)  two"})

	why[1], why[3] = "undecodable", "it speaks\nto the \x1b[31mterminal"
	w.publish(w.topics.SeedRawDead, bytes.Repeat([]byte{0xab}, 40), why...)
	w.has(w.watch(w.topics.SeedRawDead, "1"), []string{`"undecoded":{"bytes":40,"head":"` + strings.Repeat("ab", 32) + `"}`, `"reason":"undecodable"`})
	w.has(w.watch(w.topics.SeedRawDead, "1", "--table"), []string{"UNDECODABLE: it speaks to the  [31mterminal (it was at kasmina.telemetry.seed.metrics/2, offset 40)  40 bytes: " + strings.Repeat("ab", 32) + "..."})
}

func TestWatchRaw(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	two := avro.AppendFrame(avro.AppendFrame(nil, watchedFrame("one", "enc.0", 0)), watchedFrame("one", "enc.1", 1))
	w.publish(w.topics.SeedRaw, two)
	w.publish(w.topics.SeedRaw, []byte(`[{"run_id":"one","layer_id":"enc.0"}, {"run_id":"two"}]`))
	w.publish(w.topics.SeedRaw, []byte(`{"run_id":`))
	w.publish(w.topics.SeedRaw, append(two[:len(two):len(two)], 9))
	invalid := watchedFrame("one", "enc.2", 0)
	invalid.States = invalid.States[:1]
	w.publish(w.topics.SeedRaw, avro.AppendFrame(nil, invalid))
	w.has(w.watch(w.topics.SeedRaw, "1", "--layer=enc.2"), []string{`"undecoded":{"error":"states: has 1 entries for 2 seed_ids"`})
	w.has(w.watch(w.topics.SeedRaw, "8"),
		[]string{`"layer_id":"enc.0"`}, []string{`"layer_id":"enc.1"`}, []string{`"json":{"run_id":"one","layer_id":"enc.0"}`}, []string{`"json":{"run_id":"two"}`},
		[]string{`"undecoded":{"error":"not JSON"`}, []string{`"offset":3`, `"layer_id":"enc.0"`}, []string{`"layer_id":"enc.1"`}, []string{`"bytes":1,"head":"09"`})
	w.has(w.watch(w.topics.SeedRaw, "1", "--run=two", "--table"), []string{`{"run_id":"two"}`})
}

func TestWatchResolvesClaims(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	dir := t.TempDir()
	store, err := claimcheck.OpenDirectory(dir, "kasmina-tensors", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var data []byte
	for _, v := range []float32{-1, 2, 5, float32(math.NaN()), float32(math.Inf(1))} {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	kept, _, err := store.CheckIn(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	lost := store.Claim([]byte("lost"))
	f := watchedFrame("one", "enc.0", 0)
	f.Tensors = []oona.Tensor{
		{Name: "kept", Seed: 3, DType: "float32", Shape: []int64{5}, Claim: &kept},
		{Name: "lost", Seed: 3, DType: "float32", Shape: []int64{1}, Claim: &lost},
		{Name: "inline", Seed: 4, DType: "float16", Shape: []int64{2}, Data: []byte{0x00, 0x3c, 0x00, 0xc4}}, // 1, -4
	}
	w.publish(w.topics.SeedMetrics, avro.AppendFrame(nil, f))
	w.has(w.watch(w.topics.SeedMetrics, "1"), []string{`"data":{"bucket":"kasmina-tensors","key":"` + kept.Key + `","size":20,"sha256":"`, `"data":"ADwAxA=="`})
	resolve := []string{"--resolve", "--tensor-store=directory", "--tensor-directory=" + dir}
	w.has(w.watch(w.topics.SeedMetrics, "1", resolve...), []string{
		`"summary":{"elements":5,"nan":1,"infinite":1,"min":-1,"max":5,"mean":2,"from_store":true}`,
		`"problem":"check ` + lost.Key + ` out: `,
		`"summary":{"elements":2,"min":-4,"max":1,"mean":-1.5,"from_store":false}`,
	})
	w.has(w.watch(w.topics.SeedMetrics, "1", append(resolve, "--table")...), []string{"kept of seed 3: float32[5] at kasmina-tensors/" + kept.Key + " from -1 to 5, mean 2"})
}

// Watch shows new records, and Ctrl-C ends it with status 0.
func TestWatchIsLiveUntilInterrupted(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	old := watchedFrame("old", "enc.0", 0)
	w.publish(w.topics.SeedMetrics, avro.AppendFrame(nil, old))
	ctx, interrupt := context.WithCancel(t.Context())
	lines, out := io.Pipe()
	ended := make(chan int, 1)
	var messages bytes.Buffer
	go func() {
		ended <- newGrammar().execute(ctx, []string{"watch", "kasmina/telemetry/seed/+/+/metrics", "--brokers", w.brokers, "--run=new"}, streams{strings.NewReader(""), out, &messages})
	}()
	seen := make(chan string, 1)
	go func() {
		line := make([]byte, 1<<16)
		n, _ := lines.Read(line)
		seen <- string(line[:n])
		_, _ = io.Copy(io.Discard, lines)
	}()
	var line string
	for sequence := int64(0); line == ""; sequence++ {
		w.publish(w.topics.SeedMetrics, avro.AppendFrame(nil, watchedFrame("new", "enc.0", sequence)))
		select {
		case line = <-seen:
		case status := <-ended:
			t.Fatalf("it has ended with %d: %s", status, messages.String())
		default:
		}
	}
	if !json.Valid([]byte(line)) || !strings.Contains(line, `"run_id":"new"`) {
		t.Errorf("shown is %s", line)
	}
	interrupt()
	if status := <-ended; status != 0 || messages.Len() > 0 {
		t.Errorf("interrupted, it ends with %d: %s", status, messages.String())
	}
	_ = out.CloseWithError(errors.New("over"))
}

func TestWatchRefuses(t *testing.T) {
	t.Parallel()
	_, cfg := startBroker(t)
	s := newTranscript(t, cfg.Brokers[0], "BROKER")
	for _, args := range [][]string{
		{"kasmina.other"},
		{"--json"},
		{"--brokers", cfg.Brokers[0]},
		{"kasmina.telemetry.seed.raw", "--json", "--table"},
		{"kasmina.telemetry.seed.raw", "--from=yesterday"},
		{"kasmina.telemetry.seed.raw", "--count=-1"},
		{"kasmina.telemetry.seed.raw", "--resolve"},
		{"kasmina/telemetry/layer/a/health", "--layer=b"},
		{"kasmina.telemetry.seed.raw", "--brokers", cfg.Brokers[0]},
		{"kasmina.telemetry.seed.raw", "--brokers=127.0.0.1:1"},
	} {
		s.run(append([]string{"watch"}, args...)...)
	}
	s.golden("watch-errors.txt")
}
