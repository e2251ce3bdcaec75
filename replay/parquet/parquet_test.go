package parquet_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	library "github.com/parquet-go/parquet-go"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/parquet"
	"github.com/morphogenetic/oona/replay/records"
	"github.com/morphogenetic/oona/schemas/avro"
)

// memoryLog is a log of one topic.
type memoryLog struct {
	topic      string
	partitions [][]*message.Message
}

func (l *memoryLog) add(partition int32, payload []byte, headers ...string) {
	for int(partition) >= len(l.partitions) {
		l.partitions = append(l.partitions, nil)
	}
	at := bus.Position{Topic: l.topic, Partition: partition, Offset: int64(len(l.partitions[partition]))}
	msg := message.NewMessage("", payload)
	msg.SetContext(bus.WithPosition(context.Background(), at))
	for i := 0; i < len(headers); i += 2 {
		msg.Metadata.Set(headers[i], headers[i+1])
	}
	l.partitions[partition] = append(l.partitions[partition], msg)
}

func (l *memoryLog) Extents(context.Context, ...string) (map[string][]bus.Extent, error) {
	all := make([]bus.Extent, len(l.partitions))
	for i, p := range l.partitions {
		all[i] = bus.Extent{End: int64(len(p))}
	}
	return map[string][]bus.Extent{l.topic: all}, nil
}

func (l *memoryLog) Read(ctx context.Context, _ string, r bus.Range, take func(*message.Message) error) error {
	for _, msg := range l.partitions[r.Partition][r.From:min(r.End, int64(len(l.partitions[r.Partition])))] {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := take(msg); err != nil {
			return err
		}
	}
	return nil
}

func testTopics(t testing.TB) oona.Topics {
	t.Helper()
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	return topics
}

// metricNames has names that other columns have, too.
var metricNames = []string{"gradient_norm", "loss", "step", "weird:name", "rare"}

// randomFrame returns a frame of some layer. Metrics come and go, and some are not measured.
func randomFrame(random *rand.Rand, sequence int64) *oona.Frame {
	layer := random.IntN(4)
	f := &oona.Frame{
		Run: "run:a", Layer: oona.LayerID(fmt.Sprintf("enc.%d", layer)), Producer: oona.ProducerID(fmt.Sprintf("rank.%d", layer%2)), Epoch: oona.Micros(1 + random.IntN(2)),
		Sequence: sequence, ObservedAt: 1_790_000_000_000_000 + oona.Micros(sequence)*1000, Step: sequence / 3,
	}
	if layer == 3 {
		f.Run = "b"
	}
	n := random.IntN(40)
	for i := range n {
		f.Seeds = append(f.Seeds, oona.SeedID(i+random.IntN(2)*100))
		f.States = append(f.States, oona.State(random.IntN(oona.StateCount)))
	}
	slices.Sort(f.Seeds)
	f.Seeds = slices.Compact(f.Seeds)
	f.States = f.States[:len(f.Seeds)]
	for i, name := range metricNames {
		if (i == 1 && random.IntN(5) == 0) || (name == "rare" && random.IntN(30) > 0) {
			continue
		}
		values := make([]float32, len(f.Seeds))
		for j := range values {
			values[j] = float32(random.NormFloat64())
			if i == 2 && layer > 1 && random.IntN(10) == 0 {
				values[j] = float32(math.NaN())
			}
		}
		f.Metrics = append(f.Metrics, oona.Column{Name: name, Values: values})
	}
	if random.IntN(2) == 0 {
		slices.Reverse(f.Metrics)
	}
	return f
}

// randomLog returns a log, and its frames.
func randomLog(t testing.TB, seed uint64, records int) (*memoryLog, []*oona.Frame) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	log := &memoryLog{topic: testTopics(t).SeedMetrics}
	var frames []*oona.Frame
	for i := range records {
		partition := int32(random.IntN(2))
		switch random.IntN(20) {
		case 0:
			log.add(partition, []byte("tick"), oona.HeaderRecord, oona.TickRecord)
		case 1:
			log.add(partition, binary.BigEndian.AppendUint64(nil, uint64(i)))
		default:
			f := randomFrame(random, int64(i))
			frames = append(frames, f)
			log.add(partition, avro.AppendFrame(nil, f))
		}
	}
	return log, frames
}

// smallOptions returns options that make many files of few records.
func smallOptions() parquet.Options {
	return parquet.Options{Compression: "zstd", RowGroupRows: 100, FileRows: 350, HeldValues: 5000, FinishRows: 3000}
}

func metric(name string) oona.Metric { return oona.Metric{Name: name, Unit: "ratio"} }

// extractRange writes a range. If fail is not nil, writing the last record fails with it.
func extractRange(t testing.TB, log replay.Log, output *parquet.Output, topic string, r bus.Range, fail error) error {
	t.Helper()
	topics := testTopics(t)
	output.Topics, output.Prefix, output.Metric, output.Oona = topics, oona.DefaultPrefix, metric, "test"
	extraction := &replay.Extraction{Log: log, Selection: output.Options.Selection, Output: output}
	if fail != nil {
		extraction.Log = &failingLog{log, r.End - 1, fail}
	}
	return extraction.Extract(t.Context(), topic, r)
}

// failingLog cannot be read beyond an offset.
type failingLog struct {
	replay.Log
	last int64
	err  error
}

func (l *failingLog) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	r.End = min(r.End, l.last)
	return errors.Join(l.Log.Read(ctx, topic, r, take), l.err)
}

// extract writes all of a log.
func extract(t testing.TB, log replay.Log, output *parquet.Output) error {
	t.Helper()
	extents, err := log.Extents(t.Context())
	if err != nil {
		return err
	}
	for topic, partitions := range extents {
		for p, e := range partitions {
			if err := extractRange(t, log, output, topic, bus.Range{Partition: int32(p), From: e.Start, End: e.End}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// There is a row for each reading of the range. The manifest counts the records that have none.
func TestConservation(t *testing.T) {
	log, frames := randomLog(t, 1, 2000)
	output := &parquet.Output{Dir: filepath.Join(t.TempDir(), "out"), Options: smallOptions()}
	if err := extract(t, log, output); err != nil {
		t.Fatal(err)
	}
	var readings, rows, inFiles, records int64
	for _, f := range frames {
		readings += int64(len(f.Seeds))
	}
	for _, p := range output.Manifest().Topics[0].Partitions {
		rows += p.Counts.Rows
		records += p.Counts.Records
		for _, f := range p.Files {
			inFiles += f.Rows
			if info, err := os.Stat(filepath.Join(output.Dir, f.Name)); err != nil || info.Size() != f.Bytes {
				t.Errorf("%s has not %d bytes: %v", f.Name, f.Bytes, err)
			}
		}
	}
	if rows != readings || inFiles != readings || records != 2000 {
		t.Errorf("%d rows in the counts and %d in the files of %d records, want %d of 2000", rows, inFiles, records, readings)
	}
}

// testRollup returns a rollup with histograms.
func testRollup(group oona.Group, i int) *oona.Rollup {
	r := &oona.Rollup{
		Group: group, Run: "a", Layer: "enc.0", Timeline: "rank.1", Start: 1_790_000_000_000_000 + oona.Micros(i)*1_000_000, Watermark: 7, Frames: 5, Readings: 50,
		Trigger: oona.Trigger{Incarnation: 3, Offset: int64(10 * i), Index: 1}, FirstOffset: 1, LastOffset: 9, Reducer: 2, Generation: 1,
	}
	r.End = r.Start + 1_000_000
	m := oona.MetricSummary{
		Name: "loss", Count: 6, NotMeasured: 2, NotMeasuredActive: 1, Infinite: 1, Sum: 12, Min: -2, Max: 4, Mean: 2, M2: 24,
		Histogram: oona.Histogram{Zero: 1, Positive: oona.Buckets{Indexes: []int32{0, 64}, Counts: []uint64{1, 2}}, Negative: oona.Buckets{Indexes: []int32{0, 32}, Counts: []uint64{1, 1}}},
		Worst:     []oona.SeedValue{{Seed: 7, Value: 4, Offset: 5}, {Seed: 9, Value: 3, Offset: -1}},
	}
	r.Metrics = []oona.MetricSummary{m, {Name: "none", NotMeasured: 3}}
	if group == oona.Health {
		r.Seeds = oona.SeedCensus{Seen: 66, Active: 12}
		for s := range r.Seeds.ByState {
			r.Seeds.ByState[s] = int64(s + 1)
		}
	} else {
		r.Rates = oona.Rates{FramesPerSecond: 5, ReadingsPerSecond: 50, Delay: 99}
		if i%2 == 0 {
			r.Rates.StepsPerSecond, r.Rates.Steps, r.Rates.StepTime = 2.5, 5, 2_000_000
		}
	}
	r.Hash = r.ContentHash()
	return r
}

// Frames that no worker would accept have no rows, for example frames with columns that are too short.
func TestInvalidFrames(t *testing.T) {
	log := &memoryLog{topic: testTopics(t).SeedMetrics}
	valid := func() *oona.Frame {
		return &oona.Frame{
			Run: "a", Layer: "b", Producer: "c", Epoch: 1, Sequence: 1, ObservedAt: 1_790_000_000_000_000, Seeds: []oona.SeedID{1, 2},
			States: []oona.State{1, 2}, Metrics: []oona.Column{{Name: "loss", Values: []float32{1, 2}}},
		}
	}
	for _, breaks := range []func(*oona.Frame){
		func(*oona.Frame) {},
		func(f *oona.Frame) { f.Metrics[0].Values = f.Metrics[0].Values[:1] },
		func(f *oona.Frame) { f.States = f.States[:1] },
		func(f *oona.Frame) { f.Metrics = append(f.Metrics, f.Metrics[0]) },
		func(f *oona.Frame) { f.States[0] = 99 },
		func(f *oona.Frame) { f.Layer = "a/../b" },
	} {
		f := valid()
		breaks(f)
		log.add(0, avro.AppendFrame(nil, f))
	}
	for _, options := range []parquet.Options{smallOptions(), {Compression: "none", RowGroupRows: 1, FileRows: 1, HeldValues: 1, FinishRows: 9, Selection: records.Selection{Seeds: []oona.SeedID{2}}}} {
		output := &parquet.Output{Dir: filepath.Join(t.TempDir(), "out"), Options: options}
		if err := extract(t, log, output); err != nil {
			t.Fatal(err)
		}
		want := manifest.Counts{Records: 6, Readings: 2, Rows: 2, Unread: 5}
		if len(options.Selection.Seeds) > 0 {
			want.Rows, want.Skipped = 1, 1
		}
		if got := *output.Manifest().Topics[0].Partitions[0].Counts; got != want {
			t.Errorf("the counts are %+v, want %+v", got, want)
		}
	}
}

// Row groups have about as many rows as the options say, and none is much smaller.
func TestRowGroups(t *testing.T) {
	log := walk(t, 1, 70, 50, false) // 3,500 rows
	for asked, want := range map[int][]int64{1000: {875, 875, 875, 875}, 1500: {1750, 1750}, 10_000: {3500}, 3499: {3500}} {
		options := parquet.DefaultOptions()
		options.RowGroupRows = asked
		output := &parquet.Output{Dir: filepath.Join(t.TempDir(), "out"), Options: options}
		if err := extract(t, log, output); err != nil {
			t.Fatal(err)
		}
		f := output.Manifest().Topics[0].Partitions[0].Files[0]
		file, err := os.Open(filepath.Join(output.Dir, f.Name))
		if err != nil {
			t.Fatal(err)
		}
		read, err := library.OpenFile(file, f.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for _, group := range read.RowGroups() {
			got = append(got, group.NumRows())
		}
		if !slices.Equal(got, want) {
			t.Errorf("row groups of %d rows have %d, want %d", asked, got, want)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
