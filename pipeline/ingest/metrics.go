package ingest

import (
	"sync/atomic"
	"time"

	"github.com/morphogenetic/oona/intake"
	"github.com/prometheus/client_golang/prometheus"
)

// Counts are totals since the stage was made. Frames of requests that were refused
// before publishing are not counted.
type Counts struct {
	Requests    int64 // answered, with any status
	Refused     int64 // answered with a status other than 200 or 201
	Frames      int64 // frames that the bus has acknowledged and that were answered with 200
	Events      int64 // events of seeds, counted in the same way
	Readings    int64 // readings of accepted frames
	Claims      int64 // tensors of accepted frames that are in the tensor store
	Unconfirmed int64 // frames and events of requests that were answered with 503 or 413, and that the bus has not confirmed; it may have them
}

// Results of storing a tensor.
const (
	tensorKept   = "kept"
	tensorKnown  = "known"
	tensorFailed = "failed"
)

// frameMetrics counts frames and tensors, from HTTP and from the raw topic.
type frameMetrics struct {
	frames, events, readings, claims, unconfirmed atomic.Int64

	framesTotal      prometheus.CounterFunc
	eventsTotal      prometheus.CounterFunc
	readingsTotal    prometheus.CounterFunc
	bytesTotal       prometheus.Counter
	unconfirmedTotal prometheus.CounterFunc
	tensorsTotal     *prometheus.CounterVec
	tensorBytesTotal prometheus.Counter
	aside            *prometheus.CounterVec
}

func newFrameMetrics() *frameMetrics {
	m := new(frameMetrics)
	of := func(n *atomic.Int64, name, help string) prometheus.CounterFunc {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "oona_ingest_" + name, Help: help}, func() float64 { return float64(n.Load()) })
	}
	m.framesTotal = of(&m.frames, "frames_total", "Accepted frames, which the bus has acknowledged.")
	m.eventsTotal = of(&m.events, "events_total", "Accepted events of seeds and ends of runs, which the bus has acknowledged or which are in the spool.")
	m.readingsTotal = of(&m.readings, "readings_total", "Readings (one seed at one instant) of accepted frames.")
	m.unconfirmedTotal = of(&m.unconfirmed, "unconfirmed_frames_total", "Frames and events that were published but not acknowledged in time. The bus may have them.")
	m.bytesTotal = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "oona_ingest_bytes_total", Help: "Bytes of the bodies of accepted requests, decompressed.",
	})
	m.tensorsTotal = counters("tensors_total", "Tensors that the store has stored (kept), already had (known), or failed to store (failed).", "result", tensorKept, tensorKnown, tensorFailed)
	m.tensorBytesTotal = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "oona_ingest_tensor_bytes_total", Help: "Bytes of the tensors that the store has stored, without those that it already had.",
	})
	m.aside = counters("frames_aside_total", "Accepted frames that the aggregator will certainly put aside, by reason.", "reason",
		string(asideStale), string(asideFuture), string(asideMetrics), string(asideSeeds), string(asideSize))
	return m
}

func (m *frameMetrics) accept(b *intake.Batch) {
	if b.Topics != nil {
		m.events.Add(int64(len(b.Messages)))
	} else {
		m.frames.Add(int64(len(b.Messages)))
	}
	m.readings.Add(int64(b.Readings))
	m.claims.Add(int64(len(b.Tensors)))
	m.bytesTotal.Add(float64(b.Bytes))
}

// counters returns a counter with one label. The series of the given values exist from the
// start, so that Prometheus sees the first event as an increase.
func counters(name, help, label string, values ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "oona_ingest_" + name, Help: help}, []string{label})
	for _, value := range values {
		v.WithLabelValues(value)
	}
	return v
}

func register(registerer prometheus.Registerer, collectors ...prometheus.Collector) error {
	for _, c := range collectors {
		if err := registerer.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// requestMetrics counts requests.
type requestMetrics struct {
	requests, refused atomic.Int64

	requestsTotal  *prometheus.CounterVec
	rejectedTotal  *prometheus.CounterVec
	refusalsCut    *prometheus.CounterVec
	requestSeconds prometheus.Histogram
	publishSeconds prometheus.Histogram
	storeSeconds   prometheus.Histogram
	inFlight       prometheus.GaugeFunc
}

func newRequestMetrics(inFlight func() float64) *requestMetrics {
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
	m := &requestMetrics{
		requestsTotal:  counters("requests_total", "Requests answered, by HTTP status.", "code"),
		rejectedTotal:  counters("rejected_total", "Requests refused, by reason.", "reason"),
		refusalsCut:    counters("refusals_cut_total", "Refused requests whose connection was closed while the client was still sending, by the limit that was reached.", "by", cutConnections, cutBytes, cutTime, cutStop),
		requestSeconds: seconds("request_seconds", "Time from a request's header to its answer."),
		publishSeconds: seconds("publish_seconds", "Time until the bus had acknowledged or refused the frames of a request."),
		storeSeconds:   seconds("store_seconds", "Time until the tensor store had stored the tensors of a request."),
		inFlight: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "oona_ingest_in_flight", Help: "Requests with frames that are being decoded or published.",
		}, inFlight),
	}
	for why := range answers {
		m.rejectedTotal.WithLabelValues(label(why))
	}
	return m
}

// infoGauge returns a gauge that shows in Prometheus if two ingests have the same name.
func infoGauge(name string) prometheus.Gauge {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "oona_ingest_info",
		Help:        "Always 1. The label name is the name of this ingest (--instance). No two ingests may have the same name.",
		ConstLabels: prometheus.Labels{"name": name},
	})
	info.Set(1)
	return info
}
