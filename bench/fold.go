package main

import (
	"fmt"
	"hash/crc32"
	"runtime"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// folder does to a record what cmd/aggregate does, without the bus: decode,
// validate, checksum, fold, encode the rollups.
type folder struct {
	engine  *windows.Engine
	decoder avro.FrameDecoder
	frame   oona.Frame
	rollup  []byte
	rollups int
	offset  int64
	append  oona.Micros
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newFolder(cfg windows.Config) (*folder, error) {
	known, err := catalogue.Default()
	if err != nil {
		return nil, err
	}
	engine, err := windows.New(cfg, known.Metric)
	if err != nil {
		return nil, err
	}
	return &folder{engine: engine}, nil
}

// manyLayers admits as many layers as there are in a benchmark.
func manyLayers(layers int) windows.Config {
	cfg := windows.DefaultConfig()
	cfg.MaxLayers = max(cfg.MaxLayers, layers)
	return cfg
}

func (f *folder) take(payload []byte) (windows.Verdict, error) {
	if _, err := f.decoder.Decode(payload, &f.frame); err != nil {
		return 0, err
	}
	if err := f.frame.Validate(oona.DefaultFrameLimits); err != nil {
		return 0, err
	}
	body, err := avro.Body(payload)
	if err != nil {
		return 0, err
	}
	f.append = max(f.append, f.frame.ObservedAt)
	outcome := f.engine.Fold(windows.Record{
		Offset: f.offset, AppendedAt: f.append, Path: "bench", Frame: &f.frame,
		Checksum: uint64(crc32.Checksum(body, castagnoli)),
	}, func(r *oona.Rollup) {
		f.rollup = avro.AppendRollup(f.rollup[:0], r)
		f.rollups++
	})
	f.offset++
	return outcome.Verdict, nil
}

// takeAll folds the corpus and checks that it came to what it is made of.
func (f *folder) takeAll(c *corpus) error {
	folded := 0
	for i, payload := range c.payloads {
		verdict, err := f.take(payload)
		if err != nil {
			return fmt.Errorf("frame %d: %w", i, err)
		}
		switch verdict {
		case windows.Folded, windows.Replayed:
			folded++
		case windows.Duplicate:
		default:
			return fmt.Errorf("frame %d: the engine's verdict is %d", i, verdict)
		}
	}
	if folded < c.distinct {
		return fmt.Errorf("%d frames were folded of %d", folded, c.distinct)
	}
	return nil
}

var (
	sparseDecodeFold = figure{name: "sparse_decode_fold_msamples_core", unit: "M samples/s",
		about: "likewise, of frames most of whose seeds measure nothing, as in the recorded run"}
	decodeFold = figure{name: "decode_fold_msamples_core", unit: "M samples/s", goal: 250,
		about: "decode, validate, fold and emit, by processor time"}
	allocations = figure{name: "allocs_per_frame", unit: "", about: "in decode and fold, rollups included"}
	openMemory  = figure{name: "bytes_per_open_window", unit: "bytes", goal: 20 << 10, below: true,
		about: "memory of a metric of a layer's open window"}
	layersRatio = figure{name: "layers_10000_over_100", unit: "", goal: 1.2, below: true,
		about: "processor time a sample at 10,000 layers over that at 100"}
	replayRatio = figure{name: "replay_over_steady", unit: "", goal: 0.5,
		about: "speed of replaying the log of open windows over that of folding"}
)

// engineRounds measures the engine without a bus: one folder lives through all
// rounds, so that it is as warm as a worker's.
type engineRounds struct {
	corpus *corpus
	folder *folder
	start  oona.Micros
}

func newEngineRounds(c *corpus) (*engineRounds, error) {
	folder, err := newFolder(manyLayers(len(c.layers)))
	if err != nil {
		return nil, err
	}
	e := &engineRounds{corpus: c, folder: folder, start: windowStart(time.Now())}
	return e, e.fold(decodeFold, nil) // the first is to warm up
}

// windowStart is the middle of a window some hours before now.
func windowStart(now time.Time) oona.Micros {
	length := windows.DefaultConfig().Length
	return oona.MicrosOf(now.Add(-3 * time.Hour).Truncate(length).Add(length / 2))
}

func (e *engineRounds) fold(speed figure, into *figures) error {
	e.corpus.encode("bench", e.start)
	e.start += e.corpus.span(windows.DefaultConfig().Length)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	used, _, err := metered(func() error { return e.folder.takeAll(e.corpus) })
	if err != nil {
		return err
	}
	runtime.ReadMemStats(&after)
	if e.folder.rollups == 0 {
		return fmt.Errorf("no window closed in %d steps: give more", e.corpus.steps)
	}
	if into == nil {
		return nil
	}
	into.take(speed, e.corpus.samples()/used.Seconds()/1e6)
	if speed.name == decodeFold.name {
		into.take(allocations, float64(after.Mallocs-before.Mallocs)/float64(len(e.corpus.payloads)))
	}
	return nil
}

// measureLayers compares the cost of a sample at many layers and at few. Both
// have as many frames a window of a layer, and as many frames in all.
func measureLayers(many, few, steps int, into *figures) error {
	atFew, err := costPerSample(few, steps*many/few)
	if err != nil {
		return err
	}
	atMany, err := costPerSample(many, steps)
	if err != nil {
		return err
	}
	into.take(layersRatio, atMany/atFew)
	return nil
}

// costPerSample folds frames of so many layers, encoding as many at a time as
// fit into memory, and returns the nanoseconds of processor time a sample.
func costPerSample(layers, steps int) (float64, error) {
	c := newCorpus(layers, steps, 0)
	folder, err := newFolder(manyLayers(layers))
	if err != nil {
		return 0, err
	}
	start, atOnce := windowStart(time.Now()), max(1, 10_000/layers)
	var spent time.Duration
	var samples float64
	for step := 0; step < steps; step += atOnce {
		c.encodeSteps("bench", start, step, min(step+atOnce, steps))
		used, _, err := metered(func() error { return folder.takeAll(c) })
		if err != nil {
			return 0, err
		}
		spent += used
		samples += c.samples()
	}
	if folder.rollups == 0 {
		return 0, fmt.Errorf("no window of %d layers closed in %d steps", layers, steps)
	}
	return float64(spent) / samples, nil
}

// measureOpen fills windows and asks the heap what they take.
func measureOpen(c *corpus, into *figures) error {
	folder, err := newFolder(manyLayers(len(c.layers)))
	if err != nil {
		return err
	}
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before := heap()
	opened := 0
	for _, payload := range c.payloads {
		if _, err := folder.take(payload); err != nil {
			return err
		}
		if folder.rollups > 0 {
			return fmt.Errorf("a window closed after %d frames, before its memory was measured", opened)
		}
		if opened++; opened == c.distinct*5/c.steps { // half a window, its first
			break
		}
	}
	into.take(openMemory, (heap()-before)/float64(len(c.layers)*metricsPerFrame))
	runtime.KeepAlive(folder)
	return nil
}

// measureReplay folds the log of windows that stay open, commits, and lets a
// second engine replay it.
func measureReplay(c *corpus, into *figures) error {
	cfg := manyLayers(len(c.layers))
	cfg.AllowedLateness = time.Hour // all windows stay open
	steady, err := newFolder(cfg)
	if err != nil {
		return err
	}
	folding, _, err := metered(func() error { return steady.takeAll(c) })
	if err != nil {
		return err
	}
	commit, err := steady.engine.Commit()
	if err != nil {
		return err
	}
	known, err := catalogue.Default()
	if err != nil {
		return err
	}
	engine, err := windows.Resume(cfg, known.Metric, commit)
	if err != nil {
		return err
	}
	again := &folder{engine: engine}
	replaying, _, err := metered(func() error { return again.takeAll(c) })
	if err != nil {
		return err
	}
	if steady.rollups+again.rollups > 0 || again.engine.OpenWindows() != steady.engine.OpenWindows() {
		return fmt.Errorf("%d windows were open and %d are after the replay", steady.engine.OpenWindows(), again.engine.OpenWindows())
	}
	into.take(replayRatio, folding.Seconds()/replaying.Seconds())
	return nil
}
