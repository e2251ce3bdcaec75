package main

import (
	"fmt"
	"strings"
)

// Matchers by the variables of the dashboards. Those of the installation come first in all
// of them, so that two installations in one Prometheus do not mix.
const (
	installation = `namespace=~"$namespace", job=~"$job", prefix=~"$prefix"`
	ofRun        = installation + `, run="$run"`
	ofLayers     = ofRun + `, layer=~"$layer"`
)

// series is a selector. More matchers may follow those of the variables.
func series(name, by string, more ...string) string {
	return name + "{" + strings.Join(append([]string{by}, more...), ", ") + "}"
}

// named is the selector of a name that is a regular expression.
func named(pattern, by string, more ...string) string {
	return series("", `__name__=~"`+pattern+`", `+by, more...)
}

// once removes what tells the replicas of an exporter apart. They show the same values,
// but for the moments when one has read further than the other.
func once(expression string) string { return "max without (instance, pod) (" + expression + ")" }

// process are the labels of a process, with its pod where there are pods.
const process = "namespace, job, instance, pod"

// eldest takes the series of the exporter that has run for longest, in each installation.
// It is for what has no maximum: native histograms, and counts that add up to a whole, as
// the greater counts of two windows do not.
func eldest(expression string) string {
	return fmt.Sprintf("%s and on (%s) bottomk by (namespace, job, prefix) (1, %s and on (%s) %s)", expression, process,
		series("process_start_time_seconds", installation), process, series("oona_exporter_layers", installation))
}

// histogram returns the rate of a histogram, whichever kind of it Prometheus stores: the
// variable histogram is what the name of the series ends with. Classic buckets have the
// label le and native histograms do not.
func histogram(pattern, by string, more ...string) string {
	return "sum by (le) (" + eldest("rate("+named(pattern+"$histogram", by, more...)+"[$__rate_interval])") + ")"
}

func quantile(q float64, histogram string) string {
	return fmt.Sprintf("histogram_quantile(%g, %s)", q, histogram)
}

// The series of all layers of a run have recorded sums. The variable sums is what the
// names of both begin with: "kasmina", or "run:kasmina" for those that are recorded. So of
// two queries, one for each, the other finds no series.
const sums = "${sums}_layer"

// recorded is the selector of a recorded sum.
func recorded(pattern string, more ...string) string { return named(sums+pattern, ofRun, more...) }
