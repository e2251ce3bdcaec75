package scenarios

import (
	"bytes"
	"hash/crc32"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
	"github.com/morphogenetic/oona/windows/model"
)

// checkOracle folds the log of each partition with a new engine and with the model, from
// offset 0 on. The rollups, their triggers, and the outcome of each record must be the same.
func (w *world) checkOracle(log map[int32][]logRecord, r *result) {
	w.Helper()
	emitted := 0
	for p, records := range log {
		engine, expected := w.engine(p), w.model(p)
		var rollups []oona.Rollup // of the current record
		emit := func(want *oona.Rollup) {
			emitted++
			if expected != nil {
				rollups = append(rollups, *want)
				rollups[len(rollups)-1].Metrics = cloneMetrics(want.Metrics)
			}
			got := r.rollups[keyOf(want)]
			switch {
			case got == nil:
				w.fault("the oracle's rollup of %s/%s at %d was not published", want.Run, want.Layer, want.Start)
			case got.Hash != want.Hash || got.Trigger != want.Trigger || got.partition != p:
				w.fault("the oracle's rollup of %s/%s at %d has hash %x and trigger %+v on partition %d; published was %x, %+v, on %d", want.Run, want.Layer, want.Start,
					want.Hash, want.Trigger, p, got.Hash, got.Trigger, got.partition)
			case !bytes.Equal(got.value, avro.AppendRollup(nil, want)):
				w.fault("the rollup of %s/%s at %d was published as other bytes than the oracle's", want.Run, want.Layer, want.Start)
			}
		}
		check := func(in windows.Record, outcome windows.Outcome) {
			if expected == nil {
				return
			}
			if err := expected.Fold(in).Compare(outcome, rollups); err != nil {
				w.fault("partition %d: %v", p, err)
			}
			rollups, expected.Accounts = nil, nil
		}
		w.foldWhole(engine, records, emit, check, r)
		if open := engine.OpenWindows(); open > 0 {
			w.fault("%d windows of partition %d are open at the end of the log", open, p)
		}
	}
	if emitted != len(r.rollups) {
		w.fault("the oracle emitted %d rollups, %d were published", emitted, len(r.rollups))
	}
}

// engine returns a new engine for a partition.
func (w *world) engine(p int32) (engine *windows.Engine) {
	w.Helper()
	known, err := catalogue.Default()
	if err != nil {
		w.Fatal(err)
	}
	catalogues := windows.Always(known.Metric)
	if b, restarted := w.restarted[p]; restarted {
		engine, err = windows.Restart(w.configured(), catalogues, b.commit, 0, b.end)
	} else {
		engine, err = windows.New(w.windows, catalogues)
	}
	if err != nil {
		w.Fatal(err)
	}
	return engine
}

// model returns the model of the same engine, or nil if the engine starts from a commit, which
// the model does not support.
func (w *world) model(p int32) *model.Model {
	w.Helper()
	known, err := catalogue.Default()
	if err != nil {
		w.Fatal(err)
	}
	b, restarted := w.restarted[p]
	switch {
	case !restarted:
		return model.New(w.windows, known.Metric)
	case b.commit == windows.Commit{}:
		return model.New(w.configured(), known.Metric).Restart(b.end)
	}
	return nil
}

// cloneMetrics copies metrics that the engine will reuse.
func cloneMetrics(metrics []oona.MetricSummary) []oona.MetricSummary {
	metrics = slices.Clone(metrics)
	for i := range metrics {
		m := &metrics[i]
		m.Worst = slices.Clone(m.Worst)
		for _, b := range []*oona.Buckets{&m.Histogram.Positive, &m.Histogram.Negative} {
			b.Indexes, b.Counts = slices.Clone(b.Indexes), slices.Clone(b.Counts)
		}
	}
	return metrics
}

// asFolded converts a record of the log for the engine.
func (w *world) asFolded(record *logRecord) windows.Record {
	w.Helper()
	in := windows.Record{Offset: record.offset, AppendedAt: record.appended, Path: record.headers[oona.HeaderPath]}
	switch record.headers[oona.HeaderRecord] {
	case oona.ConfigurationRecord:
		c, err := windows.ConfigurationOf(w.configurationIn(record))
		if err != nil {
			w.Fatal(err)
		}
		in.Configuration = &c
	case oona.IncarnationRecord:
		s, err := avro.DecodeIncarnation(record.value)
		if err != nil {
			w.Fatal(err)
		}
		in.Incarnation = &s
	case "":
		var decoder avro.FrameDecoder
		frame := new(oona.Frame)
		rest, err := decoder.Decode(record.value, frame)
		if err == nil && len(rest) == 0 && frame.Validate(oona.DefaultFrameLimits) == nil {
			in.Frame, in.Checksum = frame, uint64(crc32.ChecksumIEEE(record.value))
		}
	}
	return in
}

// foldWhole folds a partition and compares the outcome of each frame with the side topics.
func (w *world) foldWhole(engine *windows.Engine, records []logRecord, emit func(*oona.Rollup), check func(windows.Record, windows.Outcome), r *result) {
	for i := range records {
		in := w.asFolded(&records[i])
		outcome := engine.Fold(in, emit)
		check(in, outcome)
		if in.Frame == nil {
			continue // checkConservation checks it
		}
		side := w.sideOf(outcome.Verdict)
		at := origin{records[i].partition, in.Offset}
		for topic, origins := range r.side {
			reason, there := origins[at]
			if there != (topic == side) || there && reason != string(outcome.Reason) {
				w.fault("record %+v is %s (%s) to the oracle; on %s: %t, for %q", at, outcome.Verdict, outcome.Reason, topic, there, reason)
			}
		}
	}
}

// sideOf returns the side topic of a verdict, or "".
func (w *world) sideOf(v windows.Verdict) string {
	switch v {
	case windows.Late:
		return w.topics.Late
	case windows.Quarantined:
		return w.topics.Quarantine
	case windows.Overflowed:
		return w.topics.Overflow
	}
	return ""
}
