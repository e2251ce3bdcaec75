package ingest

import (
	"github.com/morphogenetic/oona/intake"
	"github.com/prometheus/client_golang/prometheus"
)

// Outcomes of a record of the raw topic, and reasons for the loss of one.
const (
	rawForwarded = "forwarded"
	rawDead      = "dead"

	lostRetention = "retention"
	lostTooLarge  = "too-large"
)

// rawMetrics counts records of the raw topic. Frames, readings, claims and tensors are
// in frameMetrics.
type rawMetrics struct {
	records *prometheus.CounterVec
	dead    *prometheus.CounterVec
	lost    *prometheus.CounterVec
	retries *prometheus.CounterVec
	lag     *prometheus.GaugeVec
	settled *prometheus.GaugeVec
}

func newRawMetrics() *rawMetrics {
	m := &rawMetrics{
		records: counters("raw_records_total", "Records of the raw topic that were processed: their frames were forwarded, or the record is a dead letter.", "outcome", rawForwarded, rawDead),
		dead:    counters("raw_dead_total", "Records of the raw topic that became dead letters, by reason.", "reason"),
		lost:    counters("raw_lost_total", "Records of the raw topic that were deleted before they were read (retention), and dead letters that are too large for their topic (too-large).", "reason", lostRetention, lostTooLarge),
		retries: counters("raw_retries_total", "Failed attempts that will be repeated: to look up schemas, to store tensors, to publish frames, or to publish dead letters.", "of", "tensors", "frames", "dead", "schemas"),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "oona_ingest_raw_lag_records", Help: "Records of an assigned partition of the raw topic that were not processed yet, including transaction markers at its end.",
		}, []string{"partition"}),
		settled: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "oona_ingest_raw_settled_offset", Help: "Offset up to which the records of an assigned partition of the raw topic were processed.",
		}, []string{"partition"}),
	}
	for _, why := range []intake.Reason{intake.ReasonUndecodable, intake.ReasonInvalid, intake.ReasonTooLarge, reasonMismatch, reasonDangling, reasonSchema} {
		m.dead.WithLabelValues(string(why))
	}
	return m
}
