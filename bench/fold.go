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

// folder processes records like cmd/aggregate, but without the bus: decode, validate,
// checksum, fold, encode the rollups.
type folder struct {
	engine  *windows.Engine
	decoder avro.FrameDecoder
	frame   oona.Frame
	rollup  []byte
	rollups int
	frames  int64 // in the rollups
	samples int64 // in the rollups, measured or not
	offset  int64
	append  oona.Micros
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newFolder(cfg windows.Config) (*folder, error) {
	known, err := catalogue.Default()
	if err != nil {
		return nil, err
	}
	engine, err := windows.New(cfg, windows.Always(known.Metric))
	if err != nil {
		return nil, err
	}
	return &folder{engine: engine}, nil
}

// manyLayers returns a configuration that allows the given number of layers.
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
		if r.Group == oona.Health { // the other rollup of the window has the same frames
			f.frames += r.Frames
		}
		for i := range r.Metrics {
			m := &r.Metrics[i]
			f.samples += m.Count + m.NotMeasured + m.Infinite
		}
	})
	f.offset++
	return outcome.Verdict, nil
}

// takeAll folds the corpus and checks the numbers of frames and duplicates.
func (f *folder) takeAll(c *corpus) error {
	n, err := f.verdicts(c)
	if err != nil {
		return err
	}
	if n[windows.Folded] != c.distinct || n[windows.Duplicate] != len(c.payloads)-c.distinct {
		return fmt.Errorf("%d frames were folded, want %d; %d were duplicates, want %d",
			n[windows.Folded], c.distinct, n[windows.Duplicate], len(c.payloads)-c.distinct)
	}
	return nil
}

// replayAll folds the corpus again with an engine that was resumed after it.
func (f *folder) replayAll(c *corpus) error {
	n, err := f.verdicts(c)
	if err == nil && n[windows.Replayed] != len(c.payloads) {
		err = fmt.Errorf("%d frames were replayed, want %d", n[windows.Replayed], len(c.payloads))
	}
	return err
}

func (f *folder) verdicts(c *corpus) (n [windows.VerdictCount]int, err error) {
	for i, payload := range c.payloads {
		verdict, err := f.take(payload)
		if err != nil {
			return n, fmt.Errorf("frame %d: %w", i, err)
		}
		n[verdict]++
	}
	return n, nil
}

// closed checks that the rollups have the given number of frames, with all samples.
func (f *folder) closed(frames int) error {
	if f.frames != int64(frames) || f.samples != int64(frames)*samplesPerFrame {
		return fmt.Errorf("%d frames and %d samples are in the rollups of closed windows; want %d and %d", f.frames, f.samples, frames, frames*samplesPerFrame)
	}
	return nil
}

var (
	sparseDecodeFold = figure{name: "sparse_decode_fold_msamples_core", unit: "M samples/s",
		about: "the same for frames whose seeds mostly have no measurement, as in the recorded run"}
	decodeFold = figure{name: "decode_fold_msamples_core", unit: "M samples/s", goal: 250,
		about: "decode, validate, fold and emit, by processor time"}
	allocations = figure{name: "allocs_per_frame", unit: "", about: "in decode and fold, including rollups"}
	openMemory  = figure{name: "bytes_per_open_window", unit: "bytes", goal: 20 << 10, below: true,
		about: "memory per metric of a layer's open window"}
	layersRatio = figure{name: "layers_10000_over_100", unit: "", goal: 1.2, below: true,
		about: "processor time per sample with 10,000 layers, over the time with 100"}
	replayRatio = figure{name: "replay_over_steady", unit: "", goal: 0.5,
		about: "speed of replaying the log of open windows, over the speed of folding"}
)

// engineRounds measures the engine without a bus. It uses one folder for all rounds, so
// that its state is like that of a worker that has run for some time.
type engineRounds struct {
	corpus *corpus
	folder *folder
	start  oona.Micros
	rounds int
}

func newEngineRounds(c *corpus) (*engineRounds, error) {
	folder, err := newFolder(manyLayers(len(c.layers)))
	if err != nil {
		return nil, err
	}
	e := &engineRounds{corpus: c, folder: folder, start: windowStart(time.Now())}
	return e, e.fold(decodeFold, nil) // to warm up
}

// windowStart returns the middle of a window some hours before now.
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
	// At the end of a round, all windows of earlier rounds have closed.
	if err := e.folder.closed(e.rounds*e.corpus.frames() + e.corpus.closedFrames()); err != nil {
		return err
	}
	e.rounds++
	if into == nil {
		return nil
	}
	into.take(speed, e.corpus.samples()/used.Seconds()/1e6)
	if speed.name == decodeFold.name {
		into.take(allocations, float64(after.Mallocs-before.Mallocs)/float64(len(e.corpus.payloads)))
	}
	return nil
}

// layersSteps is the number of frames per layer in the comparison of layers: the first
// window closes and the second stays open.
const layersSteps = 18

// measureLayers compares the cost of a sample with many layers and with few. The numbers of
// frames, of frames per window, and of closed windows are the same.
func measureLayers(many, few int, into *figures) error {
	atFew, err := costPerSample(few, layersSteps, many/few)
	if err != nil {
		return err
	}
	atMany, err := costPerSample(many, layersSteps, 1)
	if err != nil {
		return err
	}
	into.take(layersRatio, atMany/atFew)
	return nil
}

// costPerSample folds the frames of the given number of layers several times, each time
// with a new engine. It returns the nanoseconds of processor time per sample. It encodes
// only some steps together, as not all would fit into memory.
func costPerSample(layers, steps, times int) (float64, error) {
	c := newCorpus(layers, steps, 0)
	start, batch := windowStart(time.Now())-oona.Micros(windows.DefaultConfig().Length.Microseconds()/2), max(1, 10_000/layers)
	var spent time.Duration
	var samples float64
	for n := range times {
		folder, err := newFolder(manyLayers(layers))
		if err != nil {
			return 0, err
		}
		for step := 0; step < steps; step += batch {
			if n == 0 || batch < steps { // otherwise they are encoded already
				c.encodeSteps("bench", start, step, min(step+batch, steps))
			}
			used, _, err := metered(func() error { return folder.takeAll(c) })
			if err != nil {
				return 0, err
			}
			spent += used
			samples += c.samples()
		}
		if err := folder.closed(c.closedFrames()); err != nil {
			return 0, fmt.Errorf("%d layers: %w", layers, err)
		}
	}
	return float64(spent) / samples, nil
}

// measureOpen measures the heap memory of open windows.
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
		switch verdict, err := folder.take(payload); {
		case err != nil:
			return err
		case verdict != windows.Folded && verdict != windows.Duplicate:
			return fmt.Errorf("frame %d was %s", opened, verdict)
		}
		if folder.rollups > 0 {
			return fmt.Errorf("a window closed after %d frames, before its memory was measured", opened)
		}
		if opened++; opened == c.distinct*5/c.steps { // the first half of a window
			break
		}
	}
	into.take(openMemory, (heap()-before)/float64(len(c.layers)*metricsPerFrame))
	runtime.KeepAlive(folder)
	return nil
}

// measureReplay folds the log of windows that stay open, commits, and replays the log with
// a second engine.
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
	engine, err := windows.Resume(cfg, windows.Always(known.Metric), commit)
	if err != nil {
		return err
	}
	again := &folder{engine: engine}
	replaying, _, err := metered(func() error { return again.replayAll(c) })
	if err != nil {
		return err
	}
	if steady.rollups+again.rollups > 0 || again.engine.OpenWindows() != steady.engine.OpenWindows() {
		return fmt.Errorf("%d windows were open, but %d are open after the replay", steady.engine.OpenWindows(), again.engine.OpenWindows())
	}
	into.take(replayRatio, folding.Seconds()/replaying.Seconds())
	return nil
}
