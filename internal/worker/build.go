package worker

import (
	"fmt"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// stampedVersion and stampedRevision are set when images and releases are built:
//
//	go build -ldflags "-X github.com/morphogenetic/oona/internal/worker.stampedVersion=0.1.0"
var stampedVersion, stampedRevision string

// Build describes the source of the binary.
type Build struct {
	Version  string // of the release; else of the module, "(devel)" for a build from a checkout
	Revision string // the commit, with "-dirty" if files were changed; may be empty
	Go       string
}

// ReadBuild returns what was stamped into the binary, and for the rest what the Go
// linker wrote into it.
func ReadBuild() Build {
	b := readLinked()
	if stampedVersion != "" {
		b.Version = stampedVersion
	}
	if stampedRevision != "" {
		b.Revision = stampedRevision
	}
	return b
}

func readLinked() Build {
	b := Build{Version: "(unknown)", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	dirty := ""
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Revision = setting.Value
		case "vcs.modified":
			if setting.Value == "true" {
				dirty = "-dirty"
			}
		}
	}
	if b.Revision != "" {
		b.Revision += dirty
	}
	return b
}

func (b Build) String() string {
	if b.Revision == "" {
		return fmt.Sprintf("%s %s", b.Version, b.Go)
	}
	return fmt.Sprintf("%s %s %s", b.Version, b.Revision, b.Go)
}

// VersionFlag is a flag that prints the build and exits.
type VersionFlag bool

// BeforeReset is called by kong when the flag is given.
func (VersionFlag) BeforeReset(k *kong.Kong) error {
	if _, err := fmt.Fprintf(k.Stdout, "%s %s\n", k.Model.Name, ReadBuild()); err != nil {
		return err
	}
	k.Exit(0)
	return nil
}

// NewRegistry returns a registry with oona_build_info and the metrics of the
// process and the Go runtime.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := ReadBuild()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "oona_build_info",
		Help:        "Always 1. The labels say what the binary was built from.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision, "go_version": build.Go},
	})
	info.Set(1)
	registry.MustRegister(info, newGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// goCollector is the collector of the Go runtime without the counter
// go_memstats_alloc_bytes_total. In OpenMetrics, a counter's family has no _total, so
// the family would have the name of a gauge, which strict parsers refuse.
// go_gc_heap_allocs_bytes_total has the same value.
type goCollector struct{ prometheus.Collector }

func newGoCollector() goCollector {
	allocated := collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/gc/heap/allocs:bytes$`)}
	return goCollector{collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(allocated))}
}

// Collect is part of prometheus.Collector.
func (c goCollector) Collect(out chan<- prometheus.Metric) {
	all := make(chan prometheus.Metric)
	go func() {
		defer close(all)
		c.Collector.Collect(all)
	}()
	for m := range all {
		if !strings.Contains(m.Desc().String(), `"go_memstats_alloc_bytes_total"`) {
			out <- m
		}
	}
}
