// Package top shows the current state of an installation (oona top): the layers with their
// verdicts, the partitions of the topic of frames, the side topics, and the ingests.
//
//	rollup topics --> watch.Board ----+
//	                                  +--> Snapshot --> model --> terminal
//	offsets, commits, recent frames --+            \--> lines or JSON
//	metrics of workers, if asked for -+
//
// It needs no Prometheus, because it gets the state from the bus.
package top

import (
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/watch"
)

// Snapshot is the state at one instant.
type Snapshot struct {
	At         time.Time
	Reading    bool        // whether older rollups are still being read
	Layers     []watch.Row // the worst layer is first
	Partitions []Partition
	Sides      []Side
	Ingests    []Ingest
	Faults     []string // which parts of the state are not known, and why; and the last warning of the log
}

// Partition is a partition of the topic of frames. Fields that are not known are nil.
type Partition struct {
	Partition  int32    `json:"partition"`
	Owner      string   `json:"owner,omitempty"` // the aggregator to which the partition is assigned
	Start      int64    `json:"start"`
	End        int64    `json:"end"`
	Read       *int64   `json:"read"`        // offset up to which records are read and committed
	Lag        *int64   `json:"lag_records"` // number of records from Read to End
	LagSeconds *float64 `json:"lag_seconds"` // age of the last record that was read; 0 without a lag
	PerSecond  *float64 `json:"records_per_second"`
	Fault      string   `json:"fault,omitempty"` // why the commit cannot be read
}

// Side is a side topic: it has records that are in no rollup.
type Side struct {
	Name      string   `json:"name"`
	Topic     string   `json:"topic"`
	Records   int64    `json:"records"` // number of records in the topic
	PerSecond *float64 `json:"records_per_second"`
	PerMinute *float64 `json:"records_in_the_last_minute"`
}

// Ingest is a path of frames to the bus: an ingest, or a partition of the raw topic.
type Ingest struct {
	Name string `json:"name"`
	// Seen is the append time of the last frame of a sample.
	Seen time.Time `json:"seen,omitzero"`
	// PerSecond is an estimate from samples, or comes from the metrics of the ingest.
	PerSecond *float64 `json:"frames_per_second"`
	Worker    string   `json:"worker,omitempty"`   // URL from which the metrics were read, if any
	Refused   *float64 `json:"refused_per_second"` // refused requests; nil without metrics
	BusUp     *bool    `json:"bus_up,omitempty"`   // nil without metrics
	Fault     string   `json:"fault,omitempty"`    // why the metrics could not be read
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
