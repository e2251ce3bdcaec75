package avro

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
)

// decoders by the record they decode; each returns what was left and the error.
var decoders = map[string]func(data []byte) ([]byte, error){
	seedMetrics: func(data []byte) ([]byte, error) {
		var d FrameDecoder
		var f oona.Frame
		return d.Decode(data, &f)
	},
	layerHealth:      rollupDecoder,
	layerPerformance: rollupDecoder,
	seedEvent: func(data []byte) ([]byte, error) {
		var e oona.SeedEvent
		return DecodeEvent(data, &e)
	},
	runEnd: func(data []byte) ([]byte, error) {
		var e oona.RunEnd
		return DecodeRunEnd(data, &e)
	},
	tick: func(data []byte) ([]byte, error) {
		_, err := DecodeTick(data)
		return nil, err
	},
	incarnationStart: func(data []byte) ([]byte, error) {
		_, err := DecodeIncarnation(data)
		return nil, err
	},
	windowConfiguration: func(data []byte) ([]byte, error) {
		_, err := DecodeConfiguration(data)
		return nil, err
	},
}

func rollupDecoder(data []byte) ([]byte, error) {
	var r oona.Rollup
	return DecodeRollup(data, &r)
}

func TestTruncationAtEveryByte(t *testing.T) {
	for _, s := range samples(t) {
		for n := range len(s.data) {
			_, err := decoders[s.record](s.data[:n:n])
			var where *DecodeError
			if !errors.As(err, &where) || !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("%s cut to %d of %d bytes: %v", s.name, n, len(s.data), err)
			}
			if (s.record == seedMetrics || s.record == seedEvent || s.record == runEnd) && !errors.Is(err, ErrTruncated) {
				t.Fatalf("%s cut to %d of %d bytes: %v", s.name, n, len(s.data), err)
			}
		}
	}
}

func TestWhatFollowsIsReturned(t *testing.T) {
	for _, s := range samples(t) {
		rest, err := decoders[s.record](append(bytes.Clone(s.data), "after"...))
		if s.record == tick || s.record == windowConfiguration || s.record == incarnationStart { // a record of Oona's own is all there is
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("a %s with five more bytes: %v", s.name, err)
			}
			continue
		}
		if err != nil || string(rest) != "after" {
			t.Errorf("%s: rest is %q, %v", s.name, rest, err)
		}
	}
}

func TestWrongFraming(t *testing.T) {
	for _, s := range samples(t) {
		other := AppendTick(nil, oona.Tick{})
		if s.record == tick {
			other = AppendFrame(nil, &oona.Frame{})
		}
		unknown := bytes.Clone(s.data)
		unknown[9] ^= 1
		for name, c := range map[string]struct {
			data []byte
			want error
		}{
			"nothing":        {nil, ErrTruncated},
			"JSON":           {[]byte(`{"run_id": "r"}`), ErrFraming},
			"Confluent":      {append([]byte{0, 0, 0, 0, 7}, s.data[10:]...), ErrFraming},
			"container file": {[]byte("Obj\x01....."), ErrFraming},
			"marker only":    {s.data[:2], ErrTruncated},
			"version 2":      {append([]byte{0xc3, 2}, s.data[2:]...), ErrFraming},
			"unknown":        {unknown, ErrFingerprint},
			"other record":   {other, ErrFingerprint},
		} {
			_, err := decoders[s.record](c.data)
			if !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %v", s.record, name, err)
			}
		}
	}
}

// wire builds the body of a frame by hand.
type wire []byte

func frameHead() wire { return AppendFrame(nil, &oona.Frame{Run: "r"})[:framingSize+9] }

func (w wire) long(values ...int64) wire {
	w = slices.Clip(w) // what begins the same must not share its end
	for _, v := range values {
		w = appendLong(w, v)
	}
	return w
}

func (w wire) raw(b ...byte) wire { return append(slices.Clip(w), b...) }

func (w wire) text(s string) wire { return appendText(slices.Clip(w), s) }

func TestMalformedFrames(t *testing.T) {
	const huge = 1 << 40
	seeds := frameHead().long(1, 5, 0, 1).raw(0)                                // one seed in state 0
	column := seeds.long(1).text("m")                                           // begins one column
	tensor := seeds.long(0, 1).text("t").long(5).text("int8").long(0)           // begins one tensor's data
	overlong := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2} // 65 bits
	for name, c := range map[string]struct {
		data  wire
		field string
		want  error
	}{
		"no run":                    {appendFraming(nil, seedMetricsV1), "run_id", ErrTruncated},
		"negative length":           {wire(appendFraming(nil, seedMetricsV1)).long(-1), "run_id", ErrMalformed},
		"2^40 bytes of run":         {wire(appendFraming(nil, seedMetricsV1)).long(huge), "run_id", ErrTruncated},
		"65-bit length":             {wire(appendFraming(nil, seedMetricsV1)).raw(overlong...), "run_id", ErrMalformed},
		"2^40 seeds":                {frameHead().long(huge, 0), "seed_ids", ErrTruncated},
		"-2^40 seeds":               {frameHead().long(-huge, 1, 0), "seed_ids", ErrTruncated},
		"-2^63 seeds":               {frameHead().long(math.MinInt64, 1, 0), "seed_ids", ErrTruncated},
		"block of negative size":    {frameHead().long(-1, -1, 0), "seed_ids", errBlockSize},
		"block of 2^40 bytes":       {frameHead().long(-1, huge, 0), "seed_ids", errBlockCut},
		"block says too much":       {frameHead().long(-1, 2, 5, 0, 0), "seed_ids", errBlockSize},
		"block says too little":     {frameHead().long(-1, 1, 70, 0), "seed_ids", errBlockSize},
		"33-bit seed":               {frameHead().long(1, 1<<31, 0), "seed_ids", ErrMalformed},
		"six-byte seed":             {frameHead().long(1).raw(0x80, 0x80, 0x80, 0x80, 0x80, 0, 0), "seed_ids", ErrMalformed},
		"33-bit seed among others":  {frameHead().long(6, 1, 2, 1<<31, 3, 4, 5, 0), "seed_ids", ErrMalformed},
		"negative states":           {frameHead().long(0, -3), "states", ErrMalformed},
		"2^40 columns":              {seeds.long(huge, 0), "metrics", ErrTruncated},
		"2^40 values":               {column.long(huge, 0), "metrics[0].values", ErrTruncated},
		"2^62 values":               {column.long(1<<62, 0), "metrics[0].values", ErrTruncated},
		"values cut off":            {column.long(2).raw(0, 0, 0, 0, 0, 0, 0), "metrics[0].values", ErrTruncated},
		"values say too little":     {column.long(-2, 4).raw(make([]byte, 9)...), "metrics[0].values", errBlockCut},
		"second column":             {seeds.long(2).text("m").long(0).long(-7), "metrics[1].name", ErrMalformed},
		"2^40 tensors":              {seeds.long(0, huge, 0), "tensors", ErrTruncated},
		"2^40 dimensions":           {seeds.long(0, 1).text("t").long(5).text("int8").long(huge, 0), "tensors[0].shape", ErrTruncated},
		"union index 2":             {tensor.long(2, 0, 0), "tensors[0].data", ErrMalformed},
		"union index -1":            {tensor.long(-1, 0, 0), "tensors[0].data", ErrMalformed},
		"2^40 bytes of data":        {tensor.long(0, huge, 0), "tensors[0].data", ErrTruncated},
		"claim without all its sum": {tensor.long(1).text("b").text("k").long(9).raw(make([]byte, 31)...), "tensors[0].data.sha256", ErrTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			f := *sampleFrame()
			var d FrameDecoder
			allocated := bytesAllocated(func() {
				_, err := d.Decode(c.data, &f)
				var where *DecodeError
				if !errors.As(err, &where) || !errors.Is(err, c.want) {
					t.Fatalf("error is %v, want %v", err, c.want)
				}
				if where.Field != c.field {
					t.Errorf("field is %s, want %s", where.Field, c.field)
				}
				if where.Offset < framingSize || where.Offset > len(c.data) {
					t.Errorf("offset is %d of %d bytes", where.Offset, len(c.data))
				}
			})
			if allocated > 1<<16 {
				t.Errorf("%d bytes were allocated for %d bytes of data", allocated, len(c.data))
			}
			equalFrames(t, &f, sampleFrame()) // untouched
		})
	}
}

func bytesAllocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Avro allows an array in many blocks, each with its size or without.
func TestFrameInBlocks(t *testing.T) {
	ids := wire(nil).long(64, 65, 66)
	value := []byte{0, 0, 128, 63}
	values := wire(nil).long(1).raw(value...).long(-1, 4).raw(value...).long(1).raw(value...).long(0)
	second := wire(nil).text("b").raw(values...)
	data := frameHead().
		long(1, 7, -3, int64(len(ids))).raw(ids...).long(2, 8, -9, 0). // seed_ids
		long(0).                                                       // states
		long(1).text("a").raw(values...).long(-1, int64(len(second))).raw(second...).long(0).
		long(-1, 15).text("t").long(1).text("u8").long(-1, 1, 6, 1, 7, 0).long(0, 1).raw(9).long(0)
	var d FrameDecoder
	var f oona.Frame
	rest, err := d.Decode(data, &f)
	if err != nil {
		t.Fatal(err)
	}
	if len(rest) > 0 {
		t.Errorf("%d bytes are left", len(rest))
	}
	equalFrames(t, &f, &oona.Frame{
		Run: "r", Seeds: []oona.SeedID{7, 64, 65, 66, 8, -9},
		Metrics: []oona.Column{{Name: "a", Values: []float32{1, 1, 1}}, {Name: "b", Values: []float32{1, 1, 1}}},
		Tensors: []oona.Tensor{{Name: "t", Seed: 1, DType: "u8", Shape: []int64{6, 7}, Data: []byte{9}}},
	})
}

func TestLimits(t *testing.T) {
	data := AppendFrame(nil, sampleFrame()) // 9 seeds, 2 metrics, 3 tensors
	for field, limits := range map[string]oona.FrameLimits{
		"seed_ids": {Seeds: 8, Metrics: 2, Tensors: 3},
		"metrics":  {Seeds: 9, Metrics: 1, Tensors: 3},
		"tensors":  {Seeds: 9, Metrics: 2, Tensors: 2},
	} {
		d := FrameDecoder{Limits: limits}
		var f oona.Frame
		_, err := d.Decode(data, &f)
		var where *DecodeError
		if !errors.Is(err, oona.ErrTooLarge) || !errors.As(err, &where) || where.Field != field {
			t.Errorf("above the limit of %s: %v", field, err)
		}
	}
	d := FrameDecoder{Limits: oona.FrameLimits{Seeds: 9, Metrics: 2, Tensors: 3}}
	var f oona.Frame
	if _, err := d.Decode(data, &f); err != nil {
		t.Errorf("at the limits: %v", err)
	}
}

// What a frame announces beyond its bounds is refused before it takes memory.
func TestBoundsTakeNoMemory(t *testing.T) {
	const many = 1 << 20
	wide := sampleFrame()
	wide.Tensors = []oona.Tensor{{Name: "t", Seed: wide.Seeds[0], DType: "int8", Shape: slices.Repeat([]int64{1}, many), Data: []byte{1}}}
	long := sampleFrame()
	long.Metrics[1].Values = make([]float32, many)
	for field, f := range map[string]*oona.Frame{"tensors[0].shape": wide, "metrics[1].values": long} {
		d := FrameDecoder{Limits: oona.FrameLimits{Seeds: 9}}
		var got oona.Frame
		_, err := d.Decode(AppendFrame(nil, f), &got)
		var where *DecodeError
		if !errors.Is(err, oona.ErrTooLarge) || !errors.As(err, &where) || where.Field != field {
			t.Errorf("%s: %v", field, err)
		}
		if cap(d.shapes) > oona.MaxDimensions || cap(d.values) > 64 {
			t.Errorf("%s: buffers for %d dimensions and %d values", field, cap(d.shapes), cap(d.values))
		}
	}
}

func TestMalformedRollups(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *oona.Rollup)
		field  string
	}{
		"positive": {func(r *oona.Rollup) { r.Metrics[1].Histogram.Positive.Counts = []uint64{1} }, "metrics[1].histogram.positive"},
		"negative": {func(r *oona.Rollup) { r.Metrics[0].Histogram.Negative.Indexes = nil }, "metrics[0].histogram.negative"},
		"count":    {func(r *oona.Rollup) { r.Metrics[0].Histogram.Zero = math.MaxUint64 }, "metrics[0].histogram.zero"},
	} {
		r := sampleRollup(oona.Health)
		c.change(r)
		var got oona.Rollup
		_, err := DecodeRollup(AppendRollup(nil, r), &got)
		var where *DecodeError
		if !errors.Is(err, ErrMalformed) || !errors.As(err, &where) || where.Field != c.field {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A twelfth state: one more entry before the last 0 of seeds_by_state.
	r := &oona.Rollup{Group: oona.Health}
	data := AppendRollup(nil, r)
	states := append(wire(nil).long(int64(oona.StateCount)), make([]byte, oona.StateCount)...)
	more := bytes.Replace(data, states, append(wire(nil).long(int64(oona.StateCount+1)), make([]byte, oona.StateCount+1)...), 1)
	if _, err := DecodeRollup(more, r); !statesFault(err) {
		t.Errorf("a state more: %v", err)
	}
}

// What version 2 has more has its own errors, with the fields' names.
func TestMalformedSecondRollups(t *testing.T) {
	r := sampleSecond(oona.Performance)
	whole := AppendRollup(nil, r)
	tail := wire(nil).long(int64(r.Trigger.Incarnation), 2).raw(r.Catalogue[:]...).long(int64(r.Kind), int64(r.Hop), r.Rates.Steps, int64(r.Rates.StepTime))
	head := wire(whole[:len(whole)-len(tail)])
	worst := wire(appendDouble(wire(nil).long(3), 9)) // the last entry of metrics[0].worst, without its offset
	at := bytes.Index(whole, worst) + len(worst)
	overlong := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2} // 65 bits
	for name, c := range map[string]struct {
		data  wire
		field string
		want  error
	}{
		"no incarnation":     {head, "incarnation", ErrTruncated},
		"65-bit incarnation": {head.raw(overlong...), "incarnation", errNumber},
		"33-bit reducer":     {head.long(0, 1<<31), "reducer", errNumber},
		"half a catalogue":   {head.long(0, 2).raw(1, 2, 3, 4), "catalogue", ErrTruncated},
		"33-bit kind":        {head.long(0, 2).raw(r.Catalogue[:]...).long(1 << 31), "window_kind", errNumber},
		"no hop":             {head.long(0, 2).raw(r.Catalogue[:]...).long(0), "window_hop_micros", ErrTruncated},
		"no steps":           {head.long(0, 2).raw(r.Catalogue[:]...).long(0, 0), "steps", ErrTruncated},
		"no step time":       {head.long(0, 2).raw(r.Catalogue[:]...).long(0, 0, 0), "step_micros", ErrTruncated},
		"65-bit offset":      {wire(whole[:at]).raw(overlong...).raw(whole[at:]...), "metrics[0].worst.offset", errNumber},
		"65-bit active":      {wire(whole[:at+2]).raw(overlong...).raw(whole[at+2:]...), "metrics[0].not_measured_active", errNumber},
	} {
		got := *sampleRollup(oona.Health)
		_, err := DecodeRollup(c.data, &got)
		var where *DecodeError
		if !errors.Is(err, c.want) || !errors.As(err, &where) || where.Field != c.field {
			t.Errorf("%s: %v; want %v of %s", name, err, c.want, c.field)
		}
		if !reflect.DeepEqual(&got, sampleRollup(oona.Health)) {
			t.Errorf("%s: the rollup was touched", name)
		}
	}
	if _, err := DecodeRollup(append(head, tail...), new(oona.Rollup)); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// An array in many blocks costs no more than in proportion.
func TestRollupInManyBlocks(t *testing.T) {
	data := AppendRollup(nil, &oona.Rollup{Group: oona.Health})
	data = data[:len(data)-1-1-oona.StateCount-1] // metrics and seeds_by_state
	data = append(data, bytes.Repeat([]byte{1, 2, 0}, 20_000)...)
	allocated := bytesAllocated(func() {
		_, err := DecodeRollup(append(data, 0, 0), new(oona.Rollup))
		if !statesFault(err) {
			t.Errorf("error is %v", err)
		}
	})
	if allocated > uint64(64*len(data)) {
		t.Errorf("%d bytes were allocated for %d", allocated, len(data))
	}
}

// TestMalformedEvents: wherever an event is cut or damaged, the error names the field and the
// byte, whether the event comes alone, among others or in a container.
func TestMalformedEvents(t *testing.T) {
	const huge = 1 << 40
	whole := AppendEvent(nil, &oona.SeedEvent{Run: "r", Layer: "l", Evidence: map[string]float64{"loss": 1}})
	evidence := appendDouble(appendText(appendLong(nil, 1), "loss"), 1)
	at := bytes.Index(whole, evidence)
	head, tail := wire(whole[:at]), wire(whole[at+len(evidence)+1:]) // before and after the evidence
	entry := evidence[1:]
	overlong := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2} // 65 bits
	run := wire(appendFraming(nil, seedEventV2)).text("r")
	for name, c := range map[string]struct {
		data  wire
		field string
		want  error
	}{
		"no run":                 {wire(appendFraming(nil, seedEventV2)), "run_id", ErrTruncated},
		"negative length":        {run.long(-1), "layer_id", ErrMalformed},
		"33-bit seed":            {run.text("l").long(1 << 31), "seed_id", errNumber},
		"65-bit sequence":        {run.text("l").long(0).raw(overlong...), "sequence", errNumber},
		"a twelfth state":        {run.text("l").long(0, 0, 0, 0, int64(oona.StateCount)), "from_state", ErrMalformed},
		"a negative state":       {run.text("l").long(0, 0, 0, 0, 0, -1), "to_state", ErrMalformed},
		"no evidence":            {head, "evidence", ErrTruncated},
		"2^40 entries":           {head.long(huge), "evidence", ErrTruncated},
		"one entry too many":     {head.long(2).raw(entry...), "evidence", ErrTruncated},
		"-2^63 entries":          {head.long(math.MinInt64, 1, 0), "evidence", errBlockCut},
		"65-bit count":           {head.raw(overlong...), "evidence", errNumber},
		"block of negative size": {head.long(-1, -1), "evidence", errBlockSize},
		"block of 2^40 bytes":    {head.long(-1, huge), "evidence", errBlockCut},
		"block says too much":    {head.long(-1, int64(len(entry))+1).raw(entry...).long(0), "evidence", errBlockSize},
		"negative name":          {head.long(1, -3).raw(entry...), "evidence", ErrMalformed},
		"2^40 bytes of name":     {head.long(1, huge).raw(entry...), "evidence", ErrTruncated},
		"half a value":           {head.long(1).raw(entry[:len(entry)-4]...), "evidence", ErrTruncated},
		"no end of the evidence": {head.raw(evidence...), "evidence", ErrTruncated},
		"a fourth mark":          {head.long(0).text("").text("").text("").long(0, 0, 0).text("").long(int64(oona.EventMarkCount)), "mark", ErrMalformed},
		"33-bit index":           {head.long(0).text("").text("").text("").long(0, 0, 0).text("").long(0, 0, 1<<31), "trigger_index", errNumber},
		"the last byte":          {head.long(0).raw(tail[:len(tail)-1]...), "producer_epoch", ErrTruncated},
	} {
		each := func(*oona.SeedEvent) error { return nil }
		for way, err := range map[string]error{
			"alone":          second(DecodeEvent(c.data, new(oona.SeedEvent))),
			"behind another": DecodeEvents(append(bytes.Clone(whole), c.data...), each, nil),
			"in a container": DecodeEventContainer(container(t, published.latest[seedEvent].parsed, c.data[framingSize:]), roomy, func(int) error { return nil }, each),
		} {
			where, ok := errors.AsType[*DecodeError](err)
			if !ok || !errors.Is(err, c.want) || where.Field != c.field {
				t.Errorf("%s, %s: %v; want %v of %s", name, way, err, c.want, c.field)
			} else if where.Offset < 0 || where.Offset > len(c.data) {
				t.Errorf("%s, %s: offset is %d of %d bytes", name, way, where.Offset, len(c.data))
			}
		}
	}
	if rest, err := DecodeEvent(head.long(0).raw(tail...), new(oona.SeedEvent)); err != nil || len(rest) > 0 {
		t.Errorf("unchanged: %d bytes are left, %v", len(rest), err)
	}
}

// TestMalformedRunEnds is like TestMalformedEvents, for ends of runs.
func TestMalformedRunEnds(t *testing.T) {
	event := AppendEvent(nil, sampleEvent())
	run := wire(appendFraming(nil, runEndV1)).text("r")
	for name, c := range map[string]struct {
		data  wire
		field string
		want  error
	}{
		"no run":             {wire(appendFraming(nil, runEndV1)), "run_id", ErrTruncated},
		"a fourth outcome":   {run.long(0, 0, int64(oona.RunOutcomeCount)), "outcome", ErrMalformed},
		"a negative outcome": {run.long(0, 0, -1), "outcome", ErrMalformed},
		"negative length":    {run.long(0, 0, 0, -1), "reason", ErrMalformed},
		"the last byte":      {run.long(0, 0, 0).text("").text("").text(""), "producer_epoch", ErrTruncated},
	} {
		events := 0
		for way, err := range map[string]error{
			"alone":           second(DecodeRunEnd(c.data, new(oona.RunEnd))),
			"behind an event": DecodeEvents(append(bytes.Clone(event), c.data...), func(*oona.SeedEvent) error { events++; return nil }, nil),
		} {
			where, ok := errors.AsType[*DecodeError](err)
			if !ok || !errors.Is(err, c.want) || where.Field != c.field || where.Offset < 0 || where.Offset > len(c.data) {
				t.Errorf("%s, %s: %v; want %v of %s", name, way, err, c.want, c.field)
			}
		}
		if events != 1 {
			t.Errorf("%s: %d events before it were decoded, want 1", name, events)
		}
	}
	got := *sampleRunEnd()
	whole := AppendRunEnd(nil, &oona.RunEnd{Run: "another"})
	if _, err := DecodeRunEnd(whole[:len(whole)-1], &got); err == nil || got != *sampleRunEnd() {
		t.Errorf("after %v, the end of a run is %+v", err, got)
	}
}

// TestEventsOfSeedsAndRuns: a body may have both, in any order.
func TestEventsOfSeedsAndRuns(t *testing.T) {
	body := AppendEvent(AppendRunEnd(AppendEvent(nil, sampleEvent()), sampleRunEnd()), sampleEvent())
	var order []string
	err := DecodeEvents(body, func(e *oona.SeedEvent) error {
		order = append(order, string(e.Layer))
		return nil
	}, func(e *oona.RunEnd) error {
		order = append(order, e.Outcome.String())
		return nil
	})
	if err != nil || !slices.Equal(order, []string{"enc.3", "FAILED", "enc.3"}) {
		t.Errorf("%v, %v", order, err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestEventIsUntouched: after an error, an event is what it was.
func TestEventIsUntouched(t *testing.T) {
	whole := AppendEvent(nil, &oona.SeedEvent{Run: "another", Evidence: map[string]float64{"loss": 1}})
	got := *sampleEvent()
	if _, err := DecodeEvent(whole[:len(whole)-1], &got); err == nil || !reflect.DeepEqual(&got, sampleEvent()) {
		t.Errorf("after %v, the event is %+v", err, got)
	}
}

func TestEvidenceWithANameTwice(t *testing.T) {
	e := sampleEvent()
	e.Evidence = nil
	none := AppendEvent(nil, e)
	e.Evidence = map[string]float64{"loss": 1}
	once := AppendEvent(nil, e)
	entry := appendDouble(appendText(nil, "loss"), 1)
	at := bytes.Index(once, entry) // behind the block's count
	twice := wire(once[:at-1]).long(2).raw(entry...).text("loss")
	twice = wire(appendDouble(twice, 2)).raw(none[at-1:]...)
	var got oona.SeedEvent
	_, err := DecodeEvent(twice, &got)
	if where, ok := errors.AsType[*DecodeError](err); !ok || where.Field != "evidence" || !errors.Is(err, ErrMalformed) {
		t.Errorf("evidence is %v, %v", got.Evidence, err)
	}
}

// TestEvidenceWithoutValue: the bits of a NaN depend on the processor and the program that computed
// it. Events that are equal besides have equal bytes.
func TestEvidenceWithoutValue(t *testing.T) {
	e := sampleEvent()
	var first []byte
	for _, bits := range []uint64{0x7ff8 << 48, math.Float64bits(math.NaN()), 0xfff8 << 48, 0x7ff0<<48 + 5} {
		e.Evidence = map[string]float64{"loss": math.Float64frombits(bits)}
		encoded := AppendEvent(nil, e)
		if first == nil {
			first = encoded
		}
		var got oona.SeedEvent
		if _, err := DecodeEvent(encoded, &got); err != nil || !math.IsNaN(got.Evidence["loss"]) || !bytes.Equal(encoded, first) {
			t.Errorf("%x: %v, %v", bits, got.Evidence, err)
		}
	}
}

// statesFault reports whether an error is of the states of a rollup.
func statesFault(err error) bool {
	where, ok := errors.AsType[*DecodeError](err)
	return ok && where.Field == "seeds_by_state" && errors.Is(err, ErrMalformed)
}
