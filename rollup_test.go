package oona

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
)

func TestTriggerAfter(t *testing.T) {
	ascending := []Trigger{
		{0, -1, 9}, {0, 0, 0}, {0, 0, 1}, {0, 0, 2}, {0, 1, 0}, {0, 7, 3}, {0, math.MaxInt64, math.MaxInt32},
		{5, 0, 0}, {5, 0, 1}, {5, 2, 0}, {6, 0, 0}, {6, 1, 0},
	}
	for i, a := range ascending {
		for j, b := range ascending {
			if got, want := a.After(b), i > j; got != want {
				t.Errorf("%v after %v: %t, want %t", a, b, got, want)
			}
		}
	}
}

func TestStdDev(t *testing.T) {
	for _, tt := range []struct {
		m    MetricSummary
		want float64
	}{
		{MetricSummary{}, 0},
		{MetricSummary{NotMeasured: 3, Infinite: 1}, 0},
		{MetricSummary{Count: 1, Mean: 5}, 0},
		{MetricSummary{Count: 8, Mean: 5, M2: 32}, 2}, // 2, 4, 4, 4, 5, 5, 7, 9
	} {
		if got := tt.m.StdDev(); got != tt.want {
			t.Errorf("StdDev of count %d, m2 %v = %v, want %v", tt.m.Count, tt.m.M2, got, tt.want)
		}
	}
}

// fullRollup has no field that is zero, and no two neighbours that are equal.
func fullRollup() *Rollup {
	return &Rollup{
		Group: Performance, Run: "run-1", Layer: "enc.3", Timeline: "rank:0",
		Start: 1_764_000_000_000_000, End: 1_764_000_010_000_000,
		Trigger: Trigger{Offset: 99, Index: 2}, Watermark: 1_764_000_014_000_000,
		FirstOffset: 10, LastOffset: 90, Frames: 20, Readings: 60, Duplicates: 1, Generation: 3,
		Seeds: SeedCensus{Seen: 4, Active: 5, ByState: [StateCount]int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
		Rates: Rates{FramesPerSecond: 2, ReadingsPerSecond: 6, StepsPerSecond: 1.5, Delay: 5_000_000},
		Metrics: []MetricSummary{
			{
				Name: "compute_seconds", Count: 58, NotMeasured: 1, Infinite: 2, Sum: 29, Min: -1, Max: 2.5, Mean: 0.5, M2: 12.25,
				Histogram: Histogram{
					Zero:     4,
					Positive: Buckets{Indexes: []int32{-32, 0, 43}, Counts: []uint64{1, 2, 3}},
					Negative: Buckets{Indexes: []int32{1}, Counts: []uint64{7}},
				},
				Worst: []SeedValue{{Seed: 5, Value: 2.5}, {Seed: 1, Value: 2}},
			},
			{Name: "improvement", Count: 2, Sum: 3},
		},
		Hash: 0xdecade,
	}
}

// fullSecond is fullRollup as reducer 2 may make it: it has no field that is
// zero either.
func fullSecond() *Rollup {
	r := fullRollup()
	r.Reducer, r.Catalogue, r.Kind, r.Hop = 2, CatalogueHash{1, 2, 3, 4, 5, 6, 7, 8}, Hopping, 2_000_000
	r.Trigger.Incarnation = 1_764_000_000_000_001
	r.Rates.Steps, r.Rates.StepTime = 15, 9_000_000
	r.Metrics[0].NotMeasuredActive = 9
	r.Metrics[0].Worst[0].Offset, r.Metrics[0].Worst[1].Offset = 70, 80
	return r
}

// The binary form must not change, as it would change the hashes of rollups that have
// been published. The values were computed by other code, in Python.
func TestContentHashGolden(t *testing.T) {
	if got, want := fullRollup().ContentHash(), uint64(0x9e2c37e3bee22b64); got != want {
		t.Errorf("ContentHash = %#016x, want %#016x", got, want)
	}
	if got, want := new(Rollup).ContentHash(), uint64(0x44b8aa4d28701168); got != want {
		t.Errorf("ContentHash of a zero rollup = %#016x, want %#016x", got, want)
	}
	if got, want := fullSecond().ContentHash(), uint64(0xa563f1f0b13dd4b8); got != want {
		t.Errorf("ContentHash of reducer 2 = %#016x, want %#016x", got, want)
	}
}

// What reducer 1 does not know is not in its hash.
func TestContentHashOfReducerOne(t *testing.T) {
	r := fullSecond()
	r.Reducer = 1
	if got, want := r.ContentHash(), fullRollup().ContentHash(); got != want {
		t.Errorf("ContentHash = %#016x, want %#016x", got, want)
	}
}

// TestContentHashOfEveryField changes each field, however deep, and each
// slice's length, by itself. All hashes must differ, but for Hash and the
// incarnation: a rollup that is made again in another one has the same content.
func TestContentHashOfEveryField(t *testing.T) {
	r := fullSecond()
	before := r.ContentHash()
	seen := map[uint64]string{before: "the unchanged rollup"}
	changes := 0
	eachChange(reflect.ValueOf(r).Elem(), "Rollup", func(path string) {
		changes++
		hash := r.ContentHash()
		if path == "Rollup.Hash" || path == "Rollup.Trigger.Incarnation" {
			if hash != before {
				t.Errorf("%s is part of the hash", path)
			}
			return
		}
		if other, same := seen[hash]; same {
			t.Errorf("a change of %s has the hash of %s", path, other)
		}
		seen[hash] = path
	})
	if after := r.ContentHash(); after != before {
		t.Fatalf("the walk left the rollup changed")
	}
	if changes < 70 {
		t.Errorf("only %d changes were tried", changes)
	}
}

// eachChange calls try with one leaf of v, or the length of one slice of it,
// changed at a time, and undoes each change.
func eachChange(v reflect.Value, path string, try func(path string)) {
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	defer v.Set(old)
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			eachChange(v.Field(i), path+"."+v.Type().Field(i).Name, try)
		}
	case reflect.Array, reflect.Slice:
		for i := range v.Len() {
			eachChange(v.Index(i), fmt.Sprintf("%s[%d]", path, i), try)
		}
		if v.Kind() == reflect.Slice {
			v.Set(reflect.Append(reflect.MakeSlice(v.Type(), 0, v.Len()+1), reflect.Zero(v.Type().Elem())))
			v.Set(reflect.AppendSlice(v, old))
			try(path + " one longer")
			if old.Len() > 0 {
				v.Set(old.Slice(0, old.Len()-1))
				try(path + " one shorter")
			}
		}
	case reflect.String:
		v.SetString(v.String() + "x")
		try(path)
	case reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() + 1)
		try(path)
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(v.Uint() ^ 1)
		try(path)
	case reflect.Float64:
		v.SetFloat(math.Nextafter(v.Float(), math.Inf(1)))
		try(path)
	default:
		panic(fmt.Sprintf("%s is of kind %s, which this test cannot change", path, v.Kind()))
	}
}

// TestContentHashOfEqual: equal content has equal hashes, NaN included, and an
// absent slice is an empty one.
func TestContentHashOfEqual(t *testing.T) {
	for _, edit := range []func(r *Rollup){
		func(*Rollup) {},
		func(r *Rollup) { r.Metrics[0].Mean = math.NaN() },
		func(r *Rollup) { r.Rates.StepsPerSecond = math.Inf(1) },
		func(r *Rollup) { r.Metrics = nil },
	} {
		a, b := fullRollup(), fullRollup()
		edit(a)
		edit(b)
		if a.ContentHash() != b.ContentHash() {
			t.Errorf("two hashes of %+v", a)
		}
	}
	a, b := fullRollup(), fullRollup()
	a.Metrics[1].Worst, b.Metrics[1].Worst = nil, []SeedValue{}
	a.Metrics[1].Histogram.Positive, b.Metrics[1].Histogram.Positive = Buckets{}, Buckets{Indexes: []int32{}, Counts: []uint64{}}
	if a.ContentHash() != b.ContentHash() {
		t.Error("nil and empty slices have different hashes")
	}
	a.Metrics[0].Mean, b.Metrics[0].Mean = math.NaN(), 0.5
	if a.ContentHash() == b.ContentHash() {
		t.Error("NaN has the hash of a number")
	}
}

// TestContentHashOfManyMetrics fills the hash's buffer many times, each time
// with texts at other places in it.
func TestContentHashOfManyMetrics(t *testing.T) {
	seen := map[uint64]int{}
	for n := range 200 {
		r := &Rollup{Metrics: slices.Repeat([]MetricSummary{{Name: "m"}}, n)}
		hash := r.ContentHash()
		if other, same := seen[hash]; same {
			t.Fatalf("%d and %d metrics have the same hash", n, other)
		}
		seen[hash] = n
	}
}

func BenchmarkContentHash(b *testing.B) {
	r := fullRollup()
	m := r.Metrics[0]
	m.Histogram.Positive = Buckets{Indexes: make([]int32, 150), Counts: make([]uint64, 150)}
	r.Metrics = slices.Repeat([]MetricSummary{m}, 5)
	b.ReportAllocs()
	for b.Loop() {
		r.ContentHash()
	}
}
