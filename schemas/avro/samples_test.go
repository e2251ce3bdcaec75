package avro

import (
	"math"
	"testing"

	"github.com/linkedin/goavro/v2"

	"github.com/morphogenetic/oona"
)

// sample is a record as this package encodes it, of any version, and the same as plain values
// by field name, written down apart from the codec: the independent encoders
// start from those.
type sample struct {
	name    string // of the test
	record  string // name of the schema
	data    []byte
	native  map[string]any
	decode  func(data []byte) (again []byte, err error) // decodes and encodes again
	ordered bool                                        // false: maps come in any order
}

func samples(t testing.TB) []sample {
	t.Helper()
	empty := &oona.Frame{Run: "r", Layer: "l", Producer: "p"}
	measured := layerFrame(300)
	nan := math.Float32frombits(0x7fc00123)
	measured.Metrics[3].Values[7] = nan
	one := sampleEvent()
	one.Evidence = map[string]float64{"loss": math.Inf(-1)}
	var all []sample
	for _, f := range []*oona.Frame{sampleFrame(), empty, measured} {
		all = append(all, sample{"frame", seedMetrics, AppendFrame(nil, f), nativeFrame(f), decodeFrame, true})
	}
	for _, r := range []*oona.Rollup{sampleRollup(oona.Health), {Group: oona.Health}} {
		all = append(all, sample{"health", layerHealth, AppendRollup(nil, r), nativeRollup(r, 1), decodeRollup, true})
	}
	for _, r := range []*oona.Rollup{sampleRollup(oona.Performance), {Group: oona.Performance}} {
		all = append(all, sample{"performance", layerPerformance, AppendRollup(nil, r), nativeRollup(r, 1), decodeRollup, true})
	}
	for _, r := range []*oona.Rollup{sampleSecond(oona.Health), {Group: oona.Health, Reducer: 2}} {
		all = append(all, sample{"health of version 2", layerHealth, AppendRollup(nil, r), nativeRollup(r, 2), decodeRollup, true})
	}
	for _, r := range []*oona.Rollup{sampleSecond(oona.Performance), {Group: oona.Performance, Catalogue: oona.CatalogueHash{1}}} {
		all = append(all, sample{"performance of version 2", layerPerformance, AppendRollup(nil, r), nativeRollup(r, 2), decodeRollup, true})
	}
	for _, e := range []*oona.SeedEvent{sampleEvent(), one, {}} {
		all = append(all, sample{"event", seedEvent, AppendEvent(nil, e), nativeEvent(e, 2), decodeEvent, len(e.Evidence) < 2})
	}
	for _, e := range []*oona.RunEnd{sampleRunEnd(), {}} {
		all = append(all, sample{"end of a run", runEnd, AppendRunEnd(nil, e), nativeRunEnd(e), decodeRunEnd, true})
	}
	tk := oona.Tick{Worker: "aggregate-0", WrittenAt: 1_700_000_001_000_000}
	all = append(all, sample{"tick", tick, AppendTick(nil, tk), map[string]any{
		"worker": tk.Worker, "written_at": int64(tk.WrittenAt),
	}, decodeTick, true})
	for _, c := range []oona.WindowConfiguration{sampleConfiguration(), {Gap: 1}} {
		all = append(all, sample{"configuration", windowConfiguration, AppendConfiguration(nil, c), nativeConfiguration(c, 3), decodeConfiguration, true})
	}
	before := sampleSecondConfiguration()
	before.Reducer = 1
	for _, c := range []oona.WindowConfiguration{before, {}} {
		all = append(all, sample{"configuration of version 2", windowConfiguration, AppendConfiguration(nil, c), nativeConfiguration(c, 2), decodeConfiguration, true})
	}
	for _, s := range []oona.IncarnationStart{sampleIncarnation(), {}} {
		all = append(all, sample{"incarnation", incarnationStart, AppendIncarnation(nil, s), nativeIncarnation(s), decodeIncarnation, true})
	}
	return all
}

// written is the version that a record was written with.
func written(t testing.TB, data []byte) *version {
	t.Helper()
	fp, err := readFraming(data)
	v := published.byFingerprint[fp]
	if err != nil || v == nil {
		t.Fatalf("framing of %x: %v", data[:min(len(data), framingSize)], err)
	}
	return v
}

// sampleFrame has one of everything.
func sampleFrame() *oona.Frame {
	return &oona.Frame{
		Run: "run-7", Layer: "enc.3", Timeline: "rank0", Producer: "trainer-0",
		Epoch: 1_700_000_000_000_000, Sequence: 41, ObservedAt: 1_700_000_001_000_000, Step: 900,
		Seeds:  []oona.SeedID{0, 63, 64, 8191, 8192, math.MaxInt32, math.MinInt32, -1, 5},
		States: []oona.State{0, 1, 2, 3, 4, 5, 6, 10, 9},
		Metrics: []oona.Column{
			{Name: "loss", Values: []float32{
				1, -0.5, float32(math.Inf(1)), float32(math.Inf(-1)), 0, float32(math.Copysign(0, -1)),
				math.MaxFloat32, math.SmallestNonzeroFloat32, 2,
			}},
			{Name: "empty", Values: []float32{}},
		},
		Tensors: []oona.Tensor{
			{Name: "weight", Seed: 63, DType: "float32", Shape: []int64{1, 2}, Data: []byte{0, 0, 128, 63, 0, 0, 0, 64}},
			{Name: "scalar", Seed: 64, DType: "int8", Shape: []int64{}, Data: []byte{1}},
			{Name: "big", Seed: 5, DType: "float64", Shape: []int64{1 << 40}, Claim: &oona.TensorClaim{
				Bucket: "tensors", Key: "sha256/ab", Size: 1 << 43, SHA256: [32]byte{0: 1, 31: 255},
			}},
		},
	}
}

// sampleRollup sets every field of version 1 to something else.
func sampleRollup(g oona.Group) *oona.Rollup {
	r := &oona.Rollup{
		Group: g, Run: "run-7", Layer: "enc.3", Timeline: "rank0",
		Start: 1_700_000_000_000_000, End: 1_700_000_010_000_000,
		Trigger:   oona.Trigger{Offset: 5_000_000_000, Index: 7},
		Watermark: 1_700_000_012_000_000, FirstOffset: 4_999_999_000, LastOffset: 4_999_999_998,
		Frames: 100, Readings: 100_000, Duplicates: 3, Generation: 2, Reducer: 1,
		Metrics: []oona.MetricSummary{
			{
				Name: "gradient_norm", Count: 12, NotMeasured: 2, Infinite: 1, Sum: 30.5, Min: -1, Max: 9.25, Mean: 2.5, M2: 48,
				Histogram: oona.Histogram{
					Zero:     4,
					Positive: oona.Buckets{Indexes: []int32{-40, 0, 103}, Counts: []uint64{1, 2, 4}},
					Negative: oona.Buckets{Indexes: []int32{1}, Counts: []uint64{1}},
				},
				Worst: []oona.SeedValue{{Seed: 70_000, Value: 9.25, Offset: oona.NoOffset}, {Seed: 3, Value: 9, Offset: oona.NoOffset}},
			},
			{Name: "not_measured", NotMeasured: 12, Histogram: oona.Histogram{
				Positive: oona.Buckets{Indexes: []int32{}, Counts: []uint64{}},
				Negative: oona.Buckets{Indexes: []int32{}, Counts: []uint64{}},
			}, Worst: []oona.SeedValue{}},
		},
	}
	if g == oona.Health {
		r.Seeds = oona.SeedCensus{Seen: 1_000, Active: 300, ByState: [oona.StateCount]int64{600, 100, 200, 60, 0, 0, 40}}
	} else {
		r.Rates = oona.Rates{FramesPerSecond: 10, ReadingsPerSecond: 10_000, StepsPerSecond: 9.5, Delay: 1_234_567}
	}
	r.Hash = r.ContentHash()
	return r
}

// sampleSecond sets every field to something else.
func sampleSecond(g oona.Group) *oona.Rollup {
	r := sampleRollup(g)
	r.Trigger.Incarnation = 1_790_000_000_000_000
	r.Reducer, r.Catalogue = 2, oona.CatalogueHash{0xfe, 1, 2, 3, 4, 5, 6, 0x80}
	r.Kind, r.Hop = oona.Session, 2_000_000
	r.Metrics[0].Worst[0].Offset, r.Metrics[0].Worst[1].Offset = 4_999_999_001, 0
	r.Metrics[0].NotMeasuredActive = 1
	if g == oona.Performance {
		r.Rates.Steps, r.Rates.StepTime = 95, 9_990_000
	}
	r.Hash = r.ContentHash()
	return r
}

// sampleEvent sets every field to something else.
func sampleEvent() *oona.SeedEvent {
	return &oona.SeedEvent{
		Run: "run-7", Layer: "enc.3", Seed: 12, Sequence: 3, At: 1_700_000_001_000_000, Step: 900,
		From: oona.Training, To: oona.Grafting, Reason: "loss below 0.1 for 5 steps",
		Evidence: map[string]float64{"loss": 0.05, "steps": 5, "a": -1},
		Command:  "01K0C", Actor: "alice", Node: "node-3", Session: 17, Epoch: 18, JournalIndex: 19, Blueprint: "bp/1",
		Mark: oona.EventRewound, TriggerPosition: 1 << 50, TriggerIndex: 20, Incarnation: 1_790_000_000_000_001,
		Timeline: "rank0", Producer: "trainer-0", ProducerEpoch: 1_700_000_000_000_001,
	}
}

// sampleRunEnd sets every field to something else.
func sampleRunEnd() *oona.RunEnd {
	return &oona.RunEnd{
		Run: "run-7", At: 1_700_000_001_000_000, Step: 900, Outcome: oona.RunFailed, Reason: "out of memory",
		Timeline: "rank0", Producer: "trainer-0", ProducerEpoch: 1_700_000_000_000_001,
	}
}

// sampleConfiguration sets every field to something else.
func sampleConfiguration() oona.WindowConfiguration {
	return oona.WindowConfiguration{
		Generation: 7, From: 1_700_000_010_000_000,
		Length: 10_000_000, OutOfOrderness: 1_000_000, AllowedLateness: 5_000_000, TickInterval: 999_999,
		IdleHorizon: 60_000_000, MaxSkew: 61_000_000, MaxDelay: 86_400_000_000,
		MaxTimelines: 128, MaxAccumulators: 65_536, MaxTimelineAccumulators: 32_768, MaxLayers: 4_096,
		MaxMetrics: 64, MaxSeeds: math.MaxInt32, FrontierSlots: 4_097, WorstSeeds: 5, Reducer: 9,
		Catalogue: oona.CatalogueHash{9, 8, 7, 6, 5, 4, 3, 0xff}, Kind: oona.Hopping, Hop: 2_000_000, Gap: 3_000_000,
	}
}

// sampleSecondConfiguration is what version 2 can say of sampleConfiguration.
func sampleSecondConfiguration() oona.WindowConfiguration {
	c := sampleConfiguration()
	c.Catalogue, c.Kind, c.Hop, c.Gap = oona.CatalogueHash{}, oona.Tumbling, 0, 0
	return c
}

func sampleIncarnation() oona.IncarnationStart {
	return oona.IncarnationStart{Number: 1_790_000_000_000_000, PreviousEnd: 5_000_000_000, Reason: "the log lost its end", Worker: "oona", WrittenAt: 1_790_000_000_000_002}
}

func decodeIncarnation(data []byte) ([]byte, error) {
	s, err := DecodeIncarnation(data)
	return AppendIncarnation(nil, s), err
}

func nativeIncarnation(s oona.IncarnationStart) map[string]any {
	return map[string]any{
		"number": int64(s.Number), "previous_end": s.PreviousEnd, "reason": s.Reason, "worker": s.Worker, "written_at": int64(s.WrittenAt),
	}
}

func decodeConfiguration(data []byte) ([]byte, error) {
	c, err := DecodeConfiguration(data)
	return AppendConfiguration(nil, c), err
}

func nativeConfiguration(c oona.WindowConfiguration, version int) map[string]any {
	n := map[string]any{
		"generation": c.Generation, "from": int64(c.From),
		"length": int64(c.Length), "out_of_orderness": int64(c.OutOfOrderness), "allowed_lateness": int64(c.AllowedLateness),
		"tick_interval": int64(c.TickInterval), "idle_horizon": int64(c.IdleHorizon),
		"max_skew": int64(c.MaxSkew), "max_delay": int64(c.MaxDelay),
		"max_timelines": c.MaxTimelines, "max_accumulators": c.MaxAccumulators,
		"max_timeline_accumulators": c.MaxTimelineAccumulators, "max_layers": c.MaxLayers,
		"max_metrics": c.MaxMetrics, "max_seeds": c.MaxSeeds, "frontier_slots": c.FrontierSlots, "worst_seeds": c.WorstSeeds,
		"reducer": c.Reducer,
	}
	if version >= 3 {
		n["catalogue"], n["kind"], n["hop_micros"], n["gap_micros"] = c.Catalogue[:], int32(c.Kind), int64(c.Hop), int64(c.Gap)
	}
	return n
}

func decodeFrame(data []byte) ([]byte, error) {
	var d FrameDecoder
	var f oona.Frame
	rest, err := d.Decode(data, &f)
	return append(AppendFrame(nil, &f), rest...), err
}

func decodeRollup(data []byte) ([]byte, error) {
	var r oona.Rollup
	rest, err := DecodeRollup(data, &r)
	return append(AppendRollup(nil, &r), rest...), err
}

func decodeEvent(data []byte) ([]byte, error) {
	var e oona.SeedEvent
	rest, err := DecodeEvent(data, &e)
	return append(AppendEvent(nil, &e), rest...), err
}

func decodeRunEnd(data []byte) ([]byte, error) {
	var e oona.RunEnd
	rest, err := DecodeRunEnd(data, &e)
	return append(AppendRunEnd(nil, &e), rest...), err
}

func nativeRunEnd(e *oona.RunEnd) map[string]any {
	return map[string]any{
		"run_id": string(e.Run), "at": int64(e.At), "step": e.Step, "outcome": e.Outcome.String(), "reason": e.Reason,
		"timeline": string(e.Timeline), "producer_id": string(e.Producer), "producer_epoch": e.ProducerEpoch,
	}
}

func decodeTick(data []byte) ([]byte, error) {
	tk, err := DecodeTick(data)
	return AppendTick(nil, tk), err
}

func nativeFrame(f *oona.Frame) map[string]any {
	states := make([]byte, len(f.States))
	for i, s := range f.States {
		states[i] = byte(s)
	}
	return map[string]any{
		"run_id": string(f.Run), "layer_id": string(f.Layer), "timeline": string(f.Timeline), "producer_id": string(f.Producer),
		"producer_epoch": int64(f.Epoch), "sequence": f.Sequence, "observed_at": int64(f.ObservedAt), "step": f.Step,
		"seed_ids": list(f.Seeds, func(s oona.SeedID) any { return int32(s) }),
		"states":   states,
		"metrics": list(f.Metrics, func(c oona.Column) any {
			return map[string]any{"name": c.Name, "values": list(c.Values, same)}
		}),
		"tensors": list(f.Tensors, func(t oona.Tensor) any {
			data := goavro.Union("bytes", t.Data)
			if t.Claim != nil {
				data = goavro.Union("kasmina.telemetry.TensorClaim", map[string]any{
					"bucket": t.Claim.Bucket, "key": t.Claim.Key, "size": t.Claim.Size, "sha256": t.Claim.SHA256[:],
				})
			}
			return map[string]any{
				"name": t.Name, "seed_id": int32(t.Seed), "dtype": t.DType, "shape": list(t.Shape, same), "data": data,
			}
		}),
	}
}

func nativeRollup(r *oona.Rollup, version int) map[string]any {
	hash := make([]byte, 8)
	for i := range hash {
		hash[i] = byte(r.Hash >> (56 - 8*i))
	}
	n := map[string]any{
		"run_id": string(r.Run), "layer_id": string(r.Layer), "timeline": string(r.Timeline),
		"window_start": int64(r.Start), "window_end": int64(r.End),
		"trigger_offset": r.Trigger.Offset, "trigger_index": r.Trigger.Index, "watermark": int64(r.Watermark),
		"first_offset": r.FirstOffset, "last_offset": r.LastOffset,
		"frames": r.Frames, "readings": r.Readings, "duplicates": r.Duplicates, "generation": r.Generation,
		"content_hash": hash, "metrics": list(r.Metrics, func(m oona.MetricSummary) any { return nativeMetric(m, version) }),
	}
	if version >= 2 {
		n["incarnation"], n["reducer"], n["catalogue"] = int64(r.Trigger.Incarnation), r.Reducer, r.Catalogue[:]
		n["window_kind"], n["window_hop_micros"] = int32(r.Kind), int64(r.Hop)
	}
	if r.Group == oona.Health {
		n["seeds_seen"], n["seeds_active"] = r.Seeds.Seen, r.Seeds.Active
		n["seeds_by_state"] = list(r.Seeds.ByState[:], same)
		return n
	}
	n["frames_per_second"], n["readings_per_second"] = r.Rates.FramesPerSecond, r.Rates.ReadingsPerSecond
	n["steps_per_second"], n["delay_micros"] = r.Rates.StepsPerSecond, int64(r.Rates.Delay)
	if version >= 2 {
		n["steps"], n["step_micros"] = r.Rates.Steps, int64(r.Rates.StepTime)
	}
	return n
}

func nativeMetric(m oona.MetricSummary, version int) any {
	buckets := func(b oona.Buckets) any {
		return map[string]any{
			"indexes": list(b.Indexes, same),
			"counts":  list(b.Counts, func(n uint64) any { return int64(n) }),
		}
	}
	n := map[string]any{
		"name": m.Name, "count": m.Count, "not_measured": m.NotMeasured, "infinite": m.Infinite,
		"sum": m.Sum, "min": m.Min, "max": m.Max, "mean": m.Mean, "m2": m.M2, "stddev": m.StdDev(),
		"histogram": map[string]any{
			"zero":     int64(m.Histogram.Zero),
			"positive": buckets(m.Histogram.Positive), "negative": buckets(m.Histogram.Negative),
		},
		"worst": list(m.Worst, func(s oona.SeedValue) any {
			v := map[string]any{"seed_id": int32(s.Seed), "value": s.Value}
			if version >= 2 {
				v["offset"] = s.Offset
			}
			return v
		}),
	}
	if version >= 2 {
		n["not_measured_active"] = m.NotMeasuredActive
	}
	return n
}

func nativeEvent(e *oona.SeedEvent, version int) map[string]any {
	evidence := map[string]any{}
	for name, v := range e.Evidence {
		evidence[name] = v
	}
	n := map[string]any{
		"run_id": string(e.Run), "layer_id": string(e.Layer), "seed_id": int32(e.Seed), "sequence": e.Sequence,
		"at": int64(e.At), "step": e.Step, "from_state": int32(e.From), "to_state": int32(e.To),
		"reason": e.Reason, "evidence": evidence,
	}
	if version < 2 {
		return n
	}
	for name, v := range map[string]any{
		"command_id": e.Command, "actor": e.Actor, "node": e.Node, "session": e.Session, "epoch": e.Epoch,
		"journal_index": e.JournalIndex, "blueprint_id": e.Blueprint, "mark": []string{"NORMAL", "ADOPTED", "REWOUND"}[e.Mark],
		"trigger_position": e.TriggerPosition, "trigger_index": e.TriggerIndex, "incarnation": int64(e.Incarnation),
		"timeline": string(e.Timeline), "producer_id": string(e.Producer), "producer_epoch": e.ProducerEpoch,
	} {
		n[name] = v
	}
	return n
}

func list[T any](items []T, one func(T) any) []any {
	out := make([]any, len(items))
	for i, item := range items {
		out[i] = one(item)
	}
	return out
}

func same[T any](v T) any { return v }
