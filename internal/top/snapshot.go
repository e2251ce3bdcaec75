// Package top shows the state of an installation as it changes (oona top): the layers
// with their verdicts, the partitions of the topic of frames, the side topics and the
// ingests.
//
//	rollup topics --> watch.Board ----+
//	                                  +--> Snapshot --> model --> terminal
//	offsets, commits, recent frames --+            \--> lines or JSON
//	metrics of workers, if asked for -+
//
// What it shows comes from the bus. So it needs no Prometheus.
package top

import (
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/watch"
)

// Snapshot is the state at one instant.
type Snapshot struct {
	At         time.Time
	Reading    bool        // older rollups are still being read
	Layers     []watch.Row // worst first
	Partitions []Partition
	Sides      []Side
	Ingests    []Ingest
	Faults     []string // what could not be asked, and why
}

// Partition is a partition of the topic of frames. What is not known is nil.
type Partition struct {
	Partition  int32    `json:"partition"`
	Owner      string   `json:"owner,omitempty"` // in the group of the aggregators
	Start      int64    `json:"start"`
	End        int64    `json:"end"`
	Read       *int64   `json:"read"`        // offset up to which records are read and committed
	Lag        *int64   `json:"lag_records"` // records that are not read
	LagSeconds *float64 `json:"lag_seconds"` // age of the last record that was read; 0 without a lag
	PerSecond  *float64 `json:"records_per_second"`
	Fault      string   `json:"fault,omitempty"` // why the commit cannot be read
}

// Side is a topic for what is not folded.
type Side struct {
	Name      string   `json:"name"`
	Topic     string   `json:"topic"`
	Records   int64    `json:"records"` // that the topic has
	PerSecond *float64 `json:"records_per_second"`
	PerMinute *float64 `json:"records_in_the_last_minute"`
}

// Ingest is a path of frames to the bus: an ingest, or a partition of the raw topic.
type Ingest struct {
	Name string `json:"name"`
	// Seen is the append time of the last frame of a sample.
	Seen time.Time `json:"seen,omitzero"`
	// PerSecond is an estimate from a sample, or what the worker has counted.
	PerSecond *float64 `json:"frames_per_second"`
	Worker    string   `json:"worker,omitempty"`   // URL, if the worker was asked
	Refused   *float64 `json:"refused_per_second"` // requests; only of a worker
	BusUp     *bool    `json:"bus_up,omitempty"`   // only of a worker
	Fault     string   `json:"fault,omitempty"`    // why the worker could not be asked
}

// layer is a watch.Row as JSON.
type layer struct {
	Run             oona.RunID       `json:"run"`
	Layer           oona.LayerID     `json:"layer"`
	WindowEnd       time.Time        `json:"window_end"`
	Verdict         string           `json:"verdict"` // ok, warning, critical, or learning
	Since           *time.Time       `json:"since"`
	Reasons         []reason         `json:"reasons"`
	Seeds           map[string]int64 `json:"seeds_by_state"`
	Seen            int64            `json:"seeds_seen"`
	Active          int64            `json:"seeds_active"`
	FramesPerSecond float64          `json:"frames_per_second"`
}

type reason struct {
	Metric string    `json:"metric,omitempty"`
	Kind   string    `json:"kind"`
	Level  string    `json:"level"`
	Since  time.Time `json:"since"`
	Text   string    `json:"text"`
}
