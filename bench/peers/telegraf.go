package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/plugins/aggregators/basicstats"
	"github.com/influxdata/telegraf/plugins/aggregators/quantile"
	"github.com/influxdata/telegraf/plugins/parsers/influx"

	"github.com/morphogenetic/oona"
)

// Telegraf: line protocol with a line per seed and its metrics as fields, through the parser
// and two aggregators, one for six moments and one for three quantiles (t-digest). Telegraf
// groups by all tags, so the layer is the only tag, and lines do not name the seed.
var telegrafOutputs = map[string]string{
	"count": "count", "sum": "sum", "min": "min", "max": "max", "mean": "mean", "stdev": "deviation",
	"050": "0.5", "090": "0.9", "099": "0.99",
}

func newTelegraf(windows []window) (fold, error) {
	texts := make([][][]byte, len(windows))
	for i, w := range windows {
		for j := range w {
			texts[i] = append(texts[i], lines(&w[j]))
		}
	}
	var parser influx.Parser
	if err := parser.Init(); err != nil {
		return nil, err
	}
	moments := &basicstats.BasicStats{Stats: []string{"count", "sum", "min", "max", "mean", "stdev"}}
	ranks := &quantile.Quantile{Compression: 100, AlgorithmType: "t-digest", Quantiles: quantiles}
	if err := moments.Init(); err != nil {
		return nil, err
	}
	if err := ranks.Init(); err != nil {
		return nil, err
	}
	return func() (results, error) {
		got := make(results)
		for i := range texts {
			sink := accumulator{results: got, window: i}
			if err := aggregate(&parser, texts[i], &sink, moments, ranks); err != nil {
				return nil, err
			}
		}
		return got, nil
	}, nil
}

// aggregate aggregates the texts of one window.
func aggregate(parser *influx.Parser, texts [][]byte, into *accumulator, by ...telegraf.Aggregator) error {
	for _, a := range by {
		a.Reset()
	}
	for _, text := range texts {
		metrics, err := parser.Parse(text)
		if err != nil {
			return err
		}
		for _, m := range metrics {
			for _, a := range by {
				a.Add(m)
			}
		}
	}
	for _, a := range by {
		a.Push(into)
	}
	return into.wrong
}

// accumulator collects the output of aggregators. They only call AddFields.
type accumulator struct {
	telegraf.Accumulator
	results results
	window  int
	wrong   error
}

func (a *accumulator) AddFields(_ string, fields map[string]any, tags map[string]string, _ ...time.Time) {
	for field, value := range fields {
		at := strings.LastIndexByte(field, '_')
		output, known := telegrafOutputs[field[at+1:]]
		number, isNumber := value.(float64)
		if at < 0 || !known || !isNumber {
			a.wrong = fmt.Errorf("unexpected field %s with the %T %v", field, value, value)
			continue
		}
		a.results[result{a.window, tags["layer"], field[:at], output}] = number
	}
}

func lines(f *oona.Frame) (text []byte) {
	for i := range f.Seeds {
		text = append(append(text, "seed,layer="...), f.Layer...)
		for j, column := range f.Metrics {
			text = append(text, " ,"[min(j, 1)])
			text = append(append(text, column.Name...), '=')
			text = strconv.AppendFloat(text, float64(column.Values[i]), 'g', -1, 32)
		}
		text = append(text, ' ')
		text = append(strconv.AppendInt(text, int64(f.ObservedAt)*1000, 10), '\n')
	}
	return text
}
