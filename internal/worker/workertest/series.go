package workertest

import (
	"regexp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Series is a registerer that keeps the names of the series of what is registered
// with it.
type Series struct {
	*prometheus.Registry
	names []string
}

// NewSeries returns a registerer with nothing registered.
func NewSeries() *Series { return &Series{Registry: prometheus.NewRegistry()} }

// Names returns the names of the series, sorted, each once.
func (s *Series) Names() []string {
	slices.Sort(s.names)
	return slices.Compact(s.names)
}

var seriesName = regexp.MustCompile(`fqName: "(\w+)"`)

// Register implements prometheus.Registerer.
func (s *Series) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		c.Describe(descs)
	}()
	for desc := range descs {
		s.names = append(s.names, seriesName.FindStringSubmatch(desc.String())[1])
	}
	return s.Registry.Register(c)
}

// MustRegister implements prometheus.Registerer.
func (s *Series) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := s.Register(c); err != nil {
			panic(err)
		}
	}
}
