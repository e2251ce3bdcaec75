package main

import (
	"fmt"

	"github.com/alecthomas/units"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/size"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/windows"
)

// memoryFlags limit the memory of an aggregator, instead of the number of accumulators.
type memoryFlags struct {
	Limit      units.Base2Bytes `name:"memory-limit" placeholder:"2GiB" help:"Memory of one aggregator, instead of --max-accumulators. That is then ((memory-limit - 64MiB) / worker-partitions - 32MiB) / 80KiB: the window of a layer of 1,000 seeds and 8 metrics takes 24KiB, and twice as much again is uncollected garbage and rollups in flight. --max-timeline-accumulators is half of --max-accumulators unless given."`
	Partitions int              `name:"worker-partitions" placeholder:"N" help:"Maximum number of partitions that one aggregator may be assigned, for --memory-limit. Default: all partitions of the topic, as when only one aggregator is left."`
}

// Upper limits of the memory of an aggregator, including garbage. docs/capacity.md
// has the measurements, and TestWorkerStaysUnderItsMemoryLimit checks them.
const (
	workerMemory      = 64 * units.MiB
	partitionMemory   = 32 * units.MiB // fetched records, at 8 MiB a fetch
	layerWindowMemory = 80 * units.KiB
)

// cap returns cfg with the limits of accumulators that the memory limit allows, if
// there is one. The topic has the given number of partitions. given has the names of
// the flags that were set.
func (m memoryFlags) cap(cfg windows.Config, partitions int, given map[string]bool) (windows.Config, error) {
	switch {
	case m.Limit == 0 && m.Partitions == 0:
		return cfg, nil
	case m.Limit == 0:
		return cfg, &oona.FieldError{Field: "--worker-partitions", Reason: "needs --memory-limit"}
	case given["max-accumulators"]:
		return cfg, &oona.FieldError{Field: "--memory-limit", Reason: "and --max-accumulators exclude each other: the limit determines the accumulators"}
	case m.Partitions < 0 || m.Partitions > partitions:
		return cfg, &oona.FieldError{Field: "--worker-partitions", Reason: fmt.Sprintf("is %d; give 1 to %d, the partitions of the topic", m.Partitions, partitions)}
	case m.Partitions > 0:
		partitions = m.Partitions
	}
	const least = 64 // a partition with fewer accumulators is of no use
	if needed := workerMemory + units.Base2Bytes(partitions)*(partitionMemory+least*layerWindowMemory); m.Limit < needed {
		return cfg, &oona.FieldError{Field: "--memory-limit", Reason: fmt.Sprintf("is %s; for %d of the topic's partitions, an aggregator needs at least %s; give more memory, or fewer --worker-partitions", size.Text(m.Limit), partitions, size.Text(needed))}
	}
	cfg.MaxAccumulators = int(((m.Limit-workerMemory)/units.Base2Bytes(partitions) - partitionMemory) / layerWindowMemory)
	if !given["max-timeline-accumulators"] {
		cfg.MaxTimelineAccumulators = cfg.MaxAccumulators / 2
	}
	return cfg, worker.NameFlag(cfg, cfg.Validate())
}
