package ingest

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Counts are what a stage has done since it began. A frame of a request that
// was refused before it was published is in none of them.
type Counts struct {
	Requests    int64 // answered, with whatever status
	Refused     int64 // answered with another status than 200
	Frames      int64 // accepted: acknowledged by the bus, and answered 200
	Readings    int64 // of accepted frames
	Claims      int64 // tensors of accepted frames that are in the tensor store
	Unconfirmed int64 // frames published, but answered 503 or 413: the bus may have them
}

// What became of a tensor.
const (
	tensorKept   = "kept"
	tensorKnown  = "known"
	tensorFailed = "failed"
)

type metrics struct {
	requests, refused, frames, readings, claims, unconfirmed atomic.Int64

	framesTotal      prometheus.Counter
	readingsTotal    prometheus.Counter
	bytesTotal       prometheus.Counter
	unconfirmedTotal prometheus.Counter
	requestsTotal    *prometheus.CounterVec
	rejectedTotal    *prometheus.CounterVec
	refusalsCut      *prometheus.CounterVec
	requestSeconds   prometheus.Histogram
	publishSeconds   prometheus.Histogram
	tensorsTotal     *prometheus.CounterVec
	tensorBytesTotal prometheus.Counter
	storeSeconds     prometheus.Histogram
	inFlight         prometheus.GaugeFunc
}

func newMetrics(inFlight func() float64) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "oona_ingest_" + name, Help: help})
	}
	seconds := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                            "oona_ingest_" + name,
			Help:                            help,
			Buckets:                         []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  160,
			NativeHistogramMinResetDuration: time.Hour,
		})
	}
	m := &metrics{
		framesTotal:      counter("frames_total", "Frames accepted: acknowledged by the bus."),
		readingsTotal:    counter("readings_total", "Readings (one seed at one instant) of accepted frames."),
		bytesTotal:       counter("bytes_total", "Bytes of the bodies of accepted requests, decompressed."),
		unconfirmedTotal: counter("unconfirmed_frames_total", "Frames that were published without an acknowledgement in time: the bus may have them."),
		requestsTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oona_ingest_requests_total", Help: "Requests answered, by HTTP status.",
		}, []string{"code"}),
		rejectedTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oona_ingest_rejected_total", Help: "Requests refused, by reason.",
		}, []string{"reason"}),
		refusalsCut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oona_ingest_refusals_cut_total", Help: "Refused requests whose connection was closed while the client was still sending, by the bound that was reached.",
		}, []string{"by"}),
		requestSeconds: seconds("request_seconds", "Time from a request's header to its answer."),
		publishSeconds: seconds("publish_seconds", "Time that the bus took to acknowledge or refuse a request's frames."),
		tensorsTotal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oona_ingest_tensors_total", Help: "Tensors that the store has taken (kept), had already (known), or did not take (failed).",
		}, []string{"result"}),
		tensorBytesTotal: counter("tensor_bytes_total", "Bytes of the tensors that the store has taken, without those that it had already."),
		storeSeconds:     seconds("store_seconds", "Time that the tensor store took for the tensors of a request."),
		inFlight: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "oona_ingest_in_flight", Help: "Requests that are being read or published.",
		}, inFlight),
	}
	for why := range answers {
		m.rejectedTotal.WithLabelValues(string(why)) // so that a first refusal is an increase
	}
	for _, by := range []string{cutConnections, cutBytes, cutTime, cutStop} {
		m.refusalsCut.WithLabelValues(by)
	}
	for _, result := range []string{tensorKept, tensorKnown, tensorFailed} {
		m.tensorsTotal.WithLabelValues(result)
	}
	return m
}

func (m *metrics) register(registerer prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{
		m.framesTotal, m.readingsTotal, m.bytesTotal, m.unconfirmedTotal,
		m.requestsTotal, m.rejectedTotal, m.refusalsCut, m.requestSeconds, m.publishSeconds, m.inFlight,
		m.tensorsTotal, m.tensorBytesTotal, m.storeSeconds,
	} {
		if err := registerer.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *metrics) accept(b *batch) {
	m.frames.Add(int64(len(b.messages)))
	m.readings.Add(int64(b.readings))
	m.claims.Add(int64(len(b.tensors)))
	m.framesTotal.Add(float64(len(b.messages)))
	m.readingsTotal.Add(float64(b.readings))
	m.bytesTotal.Add(float64(b.bytes))
}

func (m *metrics) unconfirm(frames int) {
	m.unconfirmed.Add(int64(frames))
	m.unconfirmedTotal.Add(float64(frames))
}

func (m *metrics) counts() Counts {
	return Counts{
		Requests:    m.requests.Load(),
		Refused:     m.refused.Load(),
		Frames:      m.frames.Load(),
		Readings:    m.readings.Load(),
		Claims:      m.claims.Load(),
		Unconfirmed: m.unconfirmed.Load(),
	}
}
