package remotewrite

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
)

// Config is what the stage must be told.
type Config struct {
	Topics oona.Topics
	Prefix string // value of the label prefix

	// URL is where requests are posted, for example
	// https://prometheus.example:9090/api/v1/write.
	URL string
	// Transport sends the requests. Nil: http.DefaultTransport.
	Transport http.RoundTripper
	// Authorization returns the value of the header Authorization for the next request,
	// or "" for none. It may be nil.
	Authorization func() string

	// MaxRuns, MaxLayers (of one run), MaxTotalLayers and MaxMetrics (of all layers
	// together) bound the values of the labels run, layer and metric. What comes beyond
	// them is not sent, and counted.
	MaxRuns        int
	MaxLayers      int
	MaxTotalLayers int
	MaxMetrics     int
	// WorstSeeds is how many of a rollup's worst seeds are sent for each metric.
	WorstSeeds int
	// SilentAfter is how long after its last rollup a layer counts for these bounds.
	SilentAfter time.Duration
}

// Validate names the first field that is wrong.
func (c Config) Validate() error {
	if c.Topics.LayerHealth == "" || c.Topics.LayerHealth == c.Topics.LayerPerformance {
		return &oona.FieldError{Field: "Topics", Reason: "has no two rollup topics; make it with oona.NewTopics"}
	}
	if err := CheckURL(c.URL); err != nil {
		return err
	}
	for _, n := range []struct {
		field        string
		value, least int
	}{
		{"MaxRuns", c.MaxRuns, 1},
		{"MaxLayers", c.MaxLayers, 1},
		{"MaxTotalLayers", c.MaxTotalLayers, 1},
		{"MaxMetrics", c.MaxMetrics, 1},
		{"WorstSeeds", c.WorstSeeds, 0},
	} {
		if n.value < n.least {
			return &oona.FieldError{Field: n.field, Reason: fmt.Sprintf("is %d; it is at least %d", n.value, n.least)}
		}
	}
	if c.SilentAfter <= 0 {
		return &oona.FieldError{Field: "SilentAfter", Reason: fmt.Sprintf("is %s; give a time above 0", c.SilentAfter)}
	}
	return nil
}

// CheckURL returns an *oona.FieldError unless requests can be posted to the URL.
func CheckURL(text string) error {
	wrong := func(reason string) error { return &oona.FieldError{Field: "URL", Reason: reason} }
	u, err := url.Parse(text)
	switch {
	case strings.Contains(text, "@"): // not quoted, as it may have a password, also if it is not a URL
		return wrong("has an @; give only scheme, host, port and path, and the user and the password by settings of their own, as the URL is shown in logs")
	case err != nil:
		return wrong("is not a URL; give one such as https://prometheus.example:9090/api/v1/write")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return wrong(fmt.Sprintf("is %q; give one such as https://prometheus.example:9090/api/v1/write", text))
	case u.Path == "" || u.Path == "/":
		return wrong(fmt.Sprintf("is %q, without a path; for Prometheus the path is /api/v1/write", text))
	}
	return nil
}
