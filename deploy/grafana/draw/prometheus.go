package draw

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Prometheus is the address of a server.
type Prometheus string

// Series is an answer of Prometheus: the labels, and points or histograms.
type Series struct {
	Metric     map[string]string
	Value      *Point
	Values     []Point
	Histogram  *Distribution
	Histograms []Distribution
}

// Point is a value at a time in seconds.
type Point struct{ T, V float64 }

// UnmarshalJSON reads [seconds, "value"].
func (p *Point) UnmarshalJSON(data []byte) error {
	var value string
	if err := json.Unmarshal(data, &[]any{&p.T, &value}); err != nil {
		return err
	}
	var err error
	p.V, err = strconv.ParseFloat(value, 64)
	return err
}

// Distribution is a native histogram at a time.
type Distribution struct {
	T       float64
	Buckets []Bucket
}

// Bucket counts samples between two bounds.
type Bucket struct{ Low, High, Count float64 }

// UnmarshalJSON reads [seconds, {"buckets": [[boundaries, "low", "high", "count"]]}].
func (d *Distribution) UnmarshalJSON(data []byte) error {
	var content struct{ Buckets [][]any }
	if err := json.Unmarshal(data, &[]any{&d.T, &content}); err != nil {
		return err
	}
	for _, b := range content.Buckets {
		var bounds [3]float64
		for i := range bounds {
			text, _ := b[i+1].(string)
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return fmt.Errorf("a bucket of a histogram: %w", err)
			}
			bounds[i] = v
		}
		d.Buckets = append(d.Buckets, Bucket{bounds[0], bounds[1], bounds[2]})
	}
	return nil
}

// Span is a time range, and the time between the points that are asked for.
type Span struct {
	From, To time.Time
	Step     time.Duration
}

func (s Span) seconds() float64 { return s.To.Sub(s.From).Seconds() }

func second(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

func (p Prometheus) get(ctx context.Context, path string, values url.Values, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, string(p)+path+"?"+values.Encode(), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Error string
		Data  json.RawMessage
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("read the answer of Prometheus: %w", err)
	}
	if answer.Error != "" {
		return fmt.Errorf("Prometheus: %s", answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// Ask sends a query of a panel: for a point in time, the end of the span, or for its course.
func (p Prometheus) Ask(ctx context.Context, expression string, instant bool, over Span) ([]Series, error) {
	var data struct{ Result json.RawMessage }
	values := url.Values{"query": {expression}}
	path := "/api/v1/query_range"
	if instant {
		path = "/api/v1/query"
		values.Set("time", number(second(over.To)))
	} else {
		values.Set("start", number(second(over.From)))
		values.Set("end", number(second(over.To)))
		values.Set("step", number(over.Step.Seconds()))
	}
	if err := p.get(ctx, path, values, &data); err != nil {
		return nil, fmt.Errorf("%w: %s", err, expression)
	}
	var all []Series
	if err := json.Unmarshal(data.Result, &all); err != nil {
		return nil, fmt.Errorf("%s has no series: %w", expression, err)
	}
	return all, nil
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

var (
	labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
	queryResult = regexp.MustCompile(`^query_result\((.+)\)$`)
)

// Choices returns the values that a variable may have, in the order in which Grafana
// offers them. Other variables have the given values.
func (p Prometheus) Choices(ctx context.Context, v Variable, others Values, over Span) ([]string, error) {
	switch v.Type {
	case "custom":
		var all []string
		for _, o := range v.Options {
			all = append(all, o.Value)
		}
		return all, nil
	case "query":
		return p.choicesOfQuery(ctx, v, others, over)
	}
	return []string{""}, nil
}

func (p Prometheus) choicesOfQuery(ctx context.Context, v Variable, others Values, over Span) (all []string, err error) {
	query := others.Substitute(v.Query)
	if m := labelValues.FindStringSubmatch(query); m != nil {
		values := url.Values{"match[]": {m[1]}, "start": {number(second(over.From))}, "end": {number(second(over.To))}}
		err := p.get(ctx, "/api/v1/label/"+m[2]+"/values", values, &all)
		return all, err
	}
	m := queryResult.FindStringSubmatch(query)
	if m == nil {
		return nil, fmt.Errorf("variable %s: draw does not know its query %s", v.Name, v.Query)
	}
	wanted, err := regexp.Compile(strings.Trim(v.Regex, "/"))
	if err != nil {
		return nil, fmt.Errorf("variable %s: %w", v.Name, err)
	}
	rows, err := p.Ask(ctx, m[1], true, over)
	for _, row := range rows { // Grafana shows a row as name{label="value"} value time
		var labels []string
		for name, value := range row.Metric {
			labels = append(labels, fmt.Sprintf("%s=%q", name, value))
		}
		slices.Sort(labels)
		if m := wanted.FindStringSubmatch("{" + strings.Join(labels, ",") + "}"); m != nil {
			all = append(all, m[1])
		}
	}
	return all, err
}

// Defaults returns the values that the variables of a dashboard have when it is opened,
// unless they are given.
func (d *Dashboard) Defaults(ctx context.Context, p Prometheus, given Values, over Span) (Values, error) {
	interval := max(4*over.Step, 15*time.Second)
	values := Values{
		"__range": fmt.Sprintf("%ds", int(over.seconds())), "__rate_interval": fmt.Sprintf("%ds", int(interval.Seconds())),
		"__from": fmt.Sprint(over.From.UnixMilli()), "__to": fmt.Sprint(over.To.UnixMilli()),
	}
	for _, v := range d.Templating.List {
		if value, ok := given[v.Name]; ok {
			values[v.Name] = value
			continue
		}
		if v.IncludeAll {
			values[v.Name] = v.AllValue
			continue
		}
		choices, err := p.Choices(ctx, v, values, over)
		if err != nil {
			return nil, fmt.Errorf("variable %s of %s: %w", v.Name, d.UID, err)
		}
		values[v.Name] = ""
		if len(choices) > 0 {
			values[v.Name] = choices[0]
		}
		if current, ok := v.Current.Value.(string); ok && slices.Contains(choices, current) {
			values[v.Name] = current
		}
	}
	for name, value := range given {
		values[name] = value
	}
	return values, nil
}
