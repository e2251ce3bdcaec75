package ingest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/windows"
)

// The reasons for which the aggregator will put a valid frame aside, if ingest can know this. They
// have the same names as in the aggregator. A strict request is refused for these reasons.
const (
	asideStale   = intake.Reason(windows.ReasonStale)
	asideFuture  = intake.Reason(windows.ReasonFuture)
	asideMetrics = intake.Reason(windows.ReasonMetrics)
	asideSeeds   = intake.Reason(windows.ReasonSeeds)
	asideSize    = intake.Reason("size")
)

const (
	// clockSlack allows for the difference between ingest's clock and the broker's clock, which
	// decides. Ingest does not judge a frame that is closer to a limit than this.
	clockSlack = 2 * time.Second
	// mostWait is the part of clockSlack that allows for the time between judging a frame and
	// appending it.
	mostWait = time.Second
)

// judge is the intake.Judge of a stage.
type judge struct {
	limits   atomic.Pointer[windows.Limits] // nil if they are not known
	decoders sync.Pool                      // *avro.FrameDecoder, for frames in the spool
}

// SetLimits sets the limits with which frames are compared, or nil if they are not known.
func (s *Stage) SetLimits(l *windows.Limits) { s.judge.limits.Store(l) }

func (j *judge) Judge(f *oona.Frame) intake.Reason {
	if most := &oona.DefaultFrameLimits; len(f.Seeds) > most.Seeds || len(f.Metrics) > most.Metrics || len(f.Tensors) > most.Tensors {
		return asideSize // this limit does not depend on the configuration of windows
	}
	limits := j.limits.Load()
	if limits == nil {
		return ""
	}
	why, _ := j.among(limits, f, oona.MicrosOf(time.Now()))
	return intake.Reason(why)
}

func (j *judge) among(limits *windows.Limits, f *oona.Frame, now oona.Micros) (windows.Reason, *windows.Config) {
	const slack = oona.Micros(clockSlack / time.Microsecond)
	return limits.Judge(f, now-slack, now+slack)
}

func (j *judge) Explain(f *oona.Frame, why intake.Reason) (field, detail string) {
	if why == asideSize {
		return oversized(f)
	}
	now := oona.MicrosOf(time.Now())
	switch why { // by now, a frame that was just beyond the limit for Judge may be within it
	case asideStale:
		now += 1e6
	case asideFuture:
		now -= 1e6
	}
	again, by := j.among(j.limits.Load(), f, now)
	if intake.Reason(again) != why { // the limits have changed since Judge was called
		return fieldOf[why], "exceeds a limit of the windows (max-delay, max-skew, max-metrics or max-seeds), which has changed in the meantime"
	}
	at, away := f.ObservedAt.Time().Format("2006-01-02T15:04:05.000Z"), time.Since(f.ObservedAt.Time()).Truncate(time.Millisecond)
	switch why {
	case asideStale:
		return fieldOf[why], fmt.Sprintf("was observed at %s, %s ago; at most %s are allowed (max-delay): check the unit and the trainer's clock; docs/backfill.md says how to fold frames that really are that old", at, away, by.MaxDelay)
	case asideFuture:
		return fieldOf[why], fmt.Sprintf("was observed at %s, %s ahead of ingest's clock; at most %s are allowed (max-skew): correct the trainer's clock or the unit", at, -away, by.MaxSkew)
	case asideMetrics:
		return fieldOf[why], fmt.Sprintf("has %d metrics; a window of a layer can have %d (max-metrics): send fewer, or ask the operator to raise the limit (oona windows apply)", len(f.Metrics), by.MaxMetrics)
	default:
		return fieldOf[why], fmt.Sprintf("has %d seeds; a window of a layer can have %d (max-seeds): divide the seeds among several layers, or ask the operator to raise the limit (oona windows apply)", len(f.Seeds), by.MaxSeeds)
	}
}

// fieldOf has the field of a frame that is the cause.
var fieldOf = map[intake.Reason]string{asideStale: "observed_at", asideFuture: "observed_at", asideMetrics: "metrics", asideSeeds: "seed_ids"}

// oversized explains why a frame is too large for every aggregator.
func oversized(f *oona.Frame) (field, detail string) {
	most := oona.DefaultFrameLimits
	field, has, limit := "tensors", len(f.Tensors), most.Tensors
	switch {
	case len(f.Seeds) > most.Seeds:
		field, has, limit = "seed_ids", len(f.Seeds), most.Seeds
	case len(f.Metrics) > most.Metrics:
		field, has, limit = "metrics", len(f.Metrics), most.Metrics
	}
	return field, fmt.Sprintf("has %d entries; an aggregator accepts at most %d, even if the limit of ingest is higher: send less in each frame", has, limit)
}

// lapse removes the reason asideFuture from a batch that is in the spool, or that was appended long
// after it was judged: its frames may no longer be in the future when they are appended.
func lapse(b *intake.Batch, judged time.Time, spooled bool) {
	if len(b.Aside) > 0 && (spooled || time.Since(judged) > mostWait) {
		b.Aside = slices.DeleteFunc(b.Aside, func(a intake.Aside) bool { return a.Reason == asideFuture })
	}
}

// accepted counts the frames of a batch, and logs which of them will be put aside.
func (s *sink) accepted(b *intake.Batch) {
	s.counts.accept(b)
	for i := range b.Aside {
		a := &b.Aside[i]
		s.counts.aside.WithLabelValues(string(a.Reason)).Add(float64(a.Frames))
		s.warn("frames were accepted that the aggregator will put aside", "reason", a.Reason, "frames", a.Frames, "run", a.Run, "detail", a.Detail, traceOfLog(b.Trace))
	}
}

// The headers of preferences (RFC 7240), and the only preference that is supported.
const (
	preferHeader  = "Prefer"
	appliedHeader = "Preference-Applied"
	strictly      = "handling=strict"
)

// strict reports whether a request is refused if one of its frames will be put aside. If the
// client asked for that and the limits are known, strict confirms it in the answer.
func (s *Stage) strict(w http.ResponseWriter, h http.Header) bool {
	asked := wantsStrict(h)
	if asked && s.judge.limits.Load().Known() {
		w.Header().Set(appliedHeader, strictly)
	}
	return asked || s.cfg.Strict
}

// wantsStrict reports whether the client prefers a refusal to frames that are put aside.
func wantsStrict(h http.Header) bool {
	for _, line := range h.Values(preferHeader) {
		for line != "" {
			var preference string
			preference, line = cutPreference(line)
			preference, _, _ = strings.Cut(preference, ";") // a quoted value that has one is not the one that is looked for
			name, value, _ := strings.Cut(preference, "=")
			if strings.EqualFold(strings.TrimSpace(name), "handling") {
				value = strings.TrimSpace(value)
				return strings.EqualFold(value, "strict") || strings.EqualFold(value, `"strict"`) // if there are several, the first one counts
			}
		}
	}
	return false
}

// cutPreference cuts the first preference off a line of them, at the first comma that is not in a
// quoted string.
func cutPreference(line string) (first, rest string) {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == '"':
			quoted = !quoted
		case line[i] == '\\' && quoted:
			i++ // the next character is quoted, whatever it is
		case line[i] == ',' && !quoted:
			return line[:i], line[i+1:]
		}
	}
	return line, ""
}

// asideAnswer is the part of an answer that describes frames that will be put aside.
type asideAnswer struct {
	Reason string `json:"reason"`
	Frames int    `json:"frames"`
	First  int    `json:"first"`
	Detail string `json:"detail"`
}

func asideAnswers(b *intake.Batch) (all []asideAnswer) {
	for i := range b.Aside {
		a := &b.Aside[i]
		all = append(all, asideAnswer{string(a.Reason), a.Frames, a.First, a.Detail})
	}
	return all
}

// limitsGauge shows whether the limits of the windows are known.
func (j *judge) limitsGauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "oona_ingest_limits_known",
		Help: "1 if ingest knows the limits of the windows, and tells clients which of their frames will be put aside; 0 if it does not know them.",
	}, func() float64 {
		if j.limits.Load().Known() {
			return 1
		}
		return 0
	})
}
