package oona

import (
	"fmt"
	"strings"
)

// DefaultPrefix begins every topic name unless configured otherwise.
const DefaultPrefix = "kasmina"

// Topics are the names of Kafka topics under one prefix.
type Topics struct {
	SeedMetrics      string // frames
	LayerHealth      string // rollups, partition p from partition p of SeedMetrics
	LayerPerformance string // the same
	Late             string // frames whose window had closed
	Quarantine       string // frames whose time or identity cannot be right
	Overflow         string // frames beyond a cap
	SeedMetricsDead  string // records of SeedMetrics that are not frames
	SeedRaw          string // frames of trainers that speak Kafka, for ingest
	SeedRawDead      string // records of SeedRaw that ingest would have refused
}

// NewTopics returns the names under prefix, which must be an id without '_':
// a topic name mixes no '.' with '_', as Kafka's metrics confuse them.
func NewTopics(prefix string) (Topics, error) {
	if err := CheckID("topic prefix", prefix); err != nil {
		return Topics{}, err
	}
	if strings.ContainsAny(prefix, "_:") {
		return Topics{}, &FieldError{"topic prefix", fmt.Sprintf("%q has '_' or ':'; use letters, digits, '.' and '-'", prefix)}
	}
	metrics, raw := prefix+".telemetry.seed.metrics", prefix+".telemetry.seed.raw"
	return Topics{
		SeedMetrics:      metrics,
		LayerHealth:      prefix + ".telemetry.layer.health",
		LayerPerformance: prefix + ".telemetry.layer.performance",
		Late:             prefix + ".telemetry.seed.late",
		Quarantine:       prefix + ".telemetry.seed.quarantine",
		Overflow:         prefix + ".telemetry.seed.overflow",
		SeedMetricsDead:  metrics + ".dead",
		SeedRaw:          raw,
		SeedRawDead:      raw + ".dead",
	}, nil
}

// Rollup returns the topic of the rollups of a group.
func (t Topics) Rollup(g Group) string {
	if g == Health {
		return t.LayerHealth
	}
	return t.LayerPerformance
}

// TopicSpec is what a topic must be like.
type TopicSpec struct {
	Name       string
	Partitions int32 // 0: any number
	// PartitionsOf is a topic that has as many; empty: none.
	PartitionsOf string
	// MaxMessageBytes is what the topic takes of a record; 0: as the broker
	// has it.
	MaxMessageBytes int
	// AppendTime: the broker stamps records (message.timestamp.type =
	// LogAppendTime). It must hold where time is taken from the log.
	AppendTime bool
}

// MaxRollupBytes is more than any rollup has: 64 metrics whose samples fill
// every bucket of both signs come to 8 MiB.
const MaxRollupBytes = 16 << 20

// MaxSideBytes is what side topics take: a record of the input and why it is
// there.
const MaxSideBytes = 2 << 20

// Specs lists the topics that there must be. Those whose partitions must
// correspond have the same number, partitions; the side topics have one. With 0
// partitions, any number will do.
func (t Topics) Specs(partitions int32) []TopicSpec {
	rollups := func(name string) TopicSpec {
		return TopicSpec{Name: name, Partitions: partitions, PartitionsOf: t.SeedMetrics, MaxMessageBytes: MaxRollupBytes}
	}
	return []TopicSpec{
		{Name: t.SeedMetrics, Partitions: partitions, AppendTime: true},
		rollups(t.LayerHealth),
		rollups(t.LayerPerformance),
		sideSpec(t.Late, partitions),
		sideSpec(t.Quarantine, partitions),
		sideSpec(t.Overflow, partitions),
		sideSpec(t.SeedMetricsDead, partitions),
	}
}

// RawSpecs lists the topics of an ingest that takes frames from Kafka too. Any
// number of partitions will do, as layers are put together later.
func (t Topics) RawSpecs(partitions int32) []TopicSpec {
	return []TopicSpec{{Name: t.SeedRaw, Partitions: partitions}, sideSpec(t.SeedRawDead, partitions)}
}

func sideSpec(name string, partitions int32) TopicSpec {
	return TopicSpec{Name: name, Partitions: min(1, partitions), MaxMessageBytes: MaxSideBytes}
}
