package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/VictoriaMetrics/VictoriaMetrics/lib/prompb"
	remotewrite "github.com/VictoriaMetrics/VictoriaMetrics/lib/protoparser/promremotewrite/stream"
	"github.com/VictoriaMetrics/VictoriaMetrics/lib/streamaggr"
	"github.com/klauspost/compress/snappy"

	"github.com/morphogenetic/oona"
)

// VictoriaMetrics, as in vmagent: Prometheus remote write requests (protocol buffers in
// Snappy), one per frame, in which each metric of each seed is a series with one sample; then
// stream aggregation by layer and metric. The interval of an hour never ends: a window ends
// when the aggregator is stopped.
const victoriaConfig = `
- interval: 1h
  no_align_flush_to_interval: true
  flush_on_shutdown: true
  by: [layer]
  outputs: [count_samples, sum_samples, min, max, avg, stddev, "quantiles(0.5, 0.9, 0.99)"]
`

// victoriaSuffix follows the name of the metric in the names of aggregates.
const victoriaSuffix = ":1h_by_layer_"

var victoriaOutputs = map[string]string{
	"count_samples": "count", "sum_samples": "sum", "min": "min", "max": "max", "avg": "mean", "stddev": "deviation",
}

func newVictoria(windows []window) (fold, error) {
	requests := make([][][]byte, len(windows))
	for i, w := range windows {
		for j := range w {
			requests[i] = append(requests[i], remoteWrite(&w[j]))
		}
	}
	return func() (results, error) {
		got := make(results)
		for i := range requests {
			if err := got.victoria(i, requests[i]); err != nil {
				return nil, err
			}
		}
		return got, nil
	}, nil
}

// victoria aggregates the requests of a window.
func (r results) victoria(window int, requests [][]byte) error {
	var wrong error
	aggregators, err := streamaggr.LoadFromData([]byte(victoriaConfig), func(emitted []prompb.TimeSeries) {
		for _, s := range emitted {
			if err := r.addSeries(window, s); err != nil {
				wrong = err
			}
		}
	}, nil, "peers")
	if err != nil {
		return err
	}
	var matched []uint32
	for _, request := range requests {
		err = remotewrite.Parse(bytes.NewReader(request), false, func(in []prompb.TimeSeries, _ []prompb.MetricMetadata) error {
			matched = aggregators.Push(in, matched)
			return nil
		})
		if err != nil {
			break
		}
	}
	aggregators.MustStop() // emits the aggregates
	if err != nil {
		return err
	}
	return wrong
}

func (r results) addSeries(window int, s prompb.TimeSeries) error {
	key := result{window: window}
	var known bool
	for _, label := range s.Labels {
		switch label.Name {
		case "__name__":
			var output string
			key.metric, output, known = strings.Cut(label.Value, victoriaSuffix)
			if known && output != "quantiles" {
				key.output, known = victoriaOutputs[output]
			}
		case "layer":
			key.layer = strings.Clone(label.Value)
		case "quantile":
			key.output = label.Value
		}
	}
	if !known || len(s.Samples) != 1 {
		return fmt.Errorf("unexpected series %s with %d samples", prompb.LabelsToString(s.Labels), len(s.Samples))
	}
	r[key] = s.Samples[0].Value
	return nil
}

func remoteWrite(f *oona.Frame) []byte {
	var request prompb.WriteRequest
	for _, column := range f.Metrics {
		for i, value := range column.Values {
			request.Timeseries = append(request.Timeseries, prompb.TimeSeries{
				Labels: []prompb.Label{
					{Name: "__name__", Value: column.Name},
					{Name: "layer", Value: string(f.Layer)},
					{Name: "seed", Value: strconv.Itoa(int(f.Seeds[i]))},
				},
				Samples: []prompb.Sample{{Value: float64(value), Timestamp: int64(f.ObservedAt) / 1000}},
			})
		}
	}
	return snappy.Encode(nil, request.MarshalProtobuf(nil))
}
