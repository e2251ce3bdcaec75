package remotewrite

import (
	"github.com/prometheus/prometheus/prompb"

	"github.com/morphogenetic/oona"
)

// Samples returns the samples of a rollup as the stage sends them, one a series, without
// histograms. The prefix is that of the topics, and worst is Config.WorstSeeds.
func Samples(prefix string, worst int, r *oona.Rollup) []prompb.TimeSeries {
	e := encoder{prefix: prefix, worst: worst, series: make([]prompb.TimeSeries, 0, about(r, worst))}
	e.encode(r)
	return e.series
}
