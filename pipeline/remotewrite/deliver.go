package remotewrite

import (
	"math/rand/v2"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/morphogenetic/oona/bus"
)

// While the receiver does not answer, the pause between two attempts doubles up to longestPause. If
// an operator must act, the pause is long from the beginning, because that takes more than seconds.
const (
	shortestPause = 500 * time.Millisecond
	longestPause  = 30 * time.Second
)

// delivery is a batch and how far it is delivered. The samples are made again for each
// attempt, always in the same order, so that nothing but the records is held in the
// pauses between them.
type delivery struct {
	*pusher
	records    []*record
	histograms bool
	done       int // samples that the receiver has answered for

	// Samples that were refused for no reason that is known, while nothing shows that
	// the receiver takes any samples. The first of them, and what the receiver said.
	doubts    int
	doubtFrom int
	doubt     answer
	judged    int64 // Stage.metrics.judged at the first such refusal; -1 if there is none
	doubted   bool  // an attempt has ended with nothing but doubts
}

// deliver returns true when the receiver has answered for each sample of the records, and
// false if the assignment ends before.
func (p *pusher) deliver(records []*record) bool {
	d := &delivery{pusher: p, records: records, histograms: p.stage.histograms(), judged: -1}
	for pause := shortestPause; ; {
		done := d.done
		a, ok := d.attempt()
		if !ok {
			return false
		}
		if a.verdict == accepted {
			d.countHistograms()
			return true
		}
		p.stage.metrics.fault(a)
		if a.verdict == denied {
			pause = longestPause
		} else if d.done > done {
			pause = shortestPause
		}
		// Partitions that fail together do not come back together.
		wait := max(a.after, pause*3/4+rand.N(pause/2))
		if !bus.Pause(p.ctx, wait) {
			return false
		}
		pause = min(2*pause, longestPause)
	}
}

// attempt sends the samples that are not delivered. It returns the first answer that says
// to wait, or an accepted one at the end. It returns false if the assignment ends before.
func (d *delivery) attempt() (answer, bool) {
	s := d.stage
	if s.requests.Acquire(d.ctx, 1) != nil {
		return answer{}, false
	}
	defer s.requests.Release(1)
	series, records := d.encode()
	if a, wait := d.probe(series); wait {
		return a, true
	}
	for size := len(series); d.done < len(series); {
		size = min(size, len(series)-d.done)
		a := s.receiver.send(d.ctx, series[d.done:d.done+size])
		if d.ctx.Err() != nil {
			return answer{}, false
		}
		s.metrics.answered(a, size)
		if a.reason == invalid && d.judged < 0 {
			d.judged = s.metrics.judged.Load()
		}
		switch {
		case a.verdict == accepted:
			s.metrics.judged.Add(1)
			d.settleDoubts()
			d.done += size
			size *= 2
		case a.verdict != refused && a.verdict != tooLarge:
			return a, true
		case size > 1: // find out which samples it refuses
			size = (size + 1) / 2
		default:
			d.done += d.refuse(a, series, records)
		}
	}
	return d.finish(), true
}

// probes is how many samples show whether a receiver that has refused all samples of a batch
// still does.
const probes = 8

// probe is called before an attempt. If the attempt before has left all samples in doubt, it
// sends some of them, each alone. If these are refused too, it returns an answer that says to
// wait: to send each sample of the batch again would be thousands of requests. It chooses the
// samples at random, so that in the end it finds one that is taken.
func (d *delivery) probe(series []prompb.TimeSeries) (a answer, wait bool) {
	if !d.doubted {
		return answer{}, false
	}
	s := d.stage
	left := series[d.done:]
	for _, i := range rand.Perm(len(left))[:min(probes, len(left))] {
		a = s.receiver.send(d.ctx, left[i:i+1])
		if d.ctx.Err() != nil {
			return a, true
		}
		s.metrics.answered(a, 1)
		switch a.verdict {
		case throttled, away, denied:
			return a, true
		case accepted:
			s.metrics.judged.Add(1)
		}
		if a.verdict != refused || a.reason != invalid {
			d.doubted = false
			return answer{}, false
		}
	}
	return answer{verdict: denied, err: a.err}, s.metrics.judged.Load() == d.judged
}

// encode returns all samples of the records, and the record of each.
func (d *delivery) encode() (series []prompb.TimeSeries, records []*record) {
	cfg := &d.stage.cfg
	e := encoder{prefix: cfg.Prefix, worst: cfg.WorstSeeds, histograms: d.histograms}
	for _, r := range d.records {
		if r.rollup == nil {
			continue
		}
		e.encode(r.rollup)
		for len(records) < len(e.series) {
			records = append(records, r)
		}
	}
	return e.series, records
}

// refuse skips the next sample, which was refused alone, and returns how many samples it
// has skipped. If the receiver gives no reason that is known, and has judged no other
// sample since, the fault may be another one than of the sample: then the sample is only
// in doubt.
func (d *delivery) refuse(a answer, series []prompb.TimeSeries, records []*record) (skipped int) {
	s, of := d.stage, records[d.done]
	skipped = 1
	switch {
	case a.verdict == tooLarge:
		a.reason = sampleSize
	case a.reason == noHistograms:
		s.withoutHistograms(a.err)
	case a.reason == invalid:
		if d.doubts == 0 {
			d.doubtFrom = d.done
		}
		d.doubts++
		d.doubt = a
		return skipped
	case a.reason == outOfOrder && !of.late && of.offset < d.assignment.LogEnd:
		a.reason = repeated
		skipped = d.sentBefore(records)
	}
	s.metrics.judged.Add(1)
	d.settleDoubts()
	d.skip(a, skipped, &series[d.done])
	return skipped
}

// sentBefore returns how many of the next samples were sent before. The next one was in the
// log when the partition was assigned, it comes in order, and was refused as out of order.
// So the owner before has sent a later window of the layer. It had an answer for all of
// this window then, as a request has one window of a layer: the other samples of the record
// need not be tried one by one. If ranks of the run report the same layer, the later window
// may be another rank's.
func (d *delivery) sentBefore(records []*record) int {
	of := records[d.done]
	if of.rollup.Timeline != "" {
		return 1
	}
	n := 1
	for d.done+n < len(records) && records[d.done+n] == of {
		n++
	}
	return n
}

// settleDoubts skips the samples in doubt, as the receiver has judged another one.
func (d *delivery) settleDoubts() {
	if d.doubts > 0 {
		d.skip(d.doubt, d.doubts, nil)
		d.doubts, d.judged = 0, -1
	}
}

// finish returns what is to be done at the end of the samples. If nothing but doubts came
// of them, they are tried again after a pause.
func (d *delivery) finish() answer {
	if d.doubts > 0 && d.stage.metrics.judged.Load() == d.judged {
		d.done, d.doubts, d.doubted = d.doubtFrom, 0, true
		return answer{verdict: denied, err: d.doubt.err}
	}
	d.settleDoubts()
	return answer{verdict: accepted}
}

// skip counts samples that the receiver will never take.
func (d *delivery) skip(a answer, samples int, series *prompb.TimeSeries) {
	n := d.stage.metrics.skipped.add(int64(samples), string(a.reason))
	if !rare(n) || a.reason == repeated {
		return
	}
	about := []any{"reason", string(a.reason), "topic", d.assignment.Topic, "partition", d.assignment.Partition, "err", a.err, "count", n}
	if series != nil {
		about = append(about, "series", seriesText(series))
	}
	d.stage.logger.Warn("the remote-write receiver refused samples, which are skipped", about...)
}

// countHistograms counts the histograms of the records if they were left out.
func (d *delivery) countHistograms() {
	if d.histograms {
		return
	}
	for _, r := range d.records {
		if r.rollup == nil {
			continue
		}
		for i := range r.rollup.Metrics {
			if r.rollup.Metrics[i].Count > 0 {
				d.stage.metrics.skipped.add(1, string(noHistograms))
			}
		}
	}
}

// histogramPause is how long no histograms are sent to a receiver that has said that it
// does not store them.
const histogramPause = 10 * time.Minute

func (s *Stage) withoutHistograms(err error) {
	if s.noHistogramsUntil.Swap(time.Now().Add(histogramPause).UnixNano()) == 0 {
		s.logger.Error("the remote-write receiver does not store native histograms, so the histograms of windows are not sent; Prometheus 2 needs --enable-feature=native-histograms", "err", err)
	}
}
