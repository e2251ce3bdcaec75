package parquet

import (
	"fmt"
	"path"
	"strings"

	"github.com/morphogenetic/oona"
)

// The names of files in the directory.
const (
	framesTable     = "seed_metrics"
	statesTable     = "states.parquet"
	producersTable  = "producers.parquet"
	parquetFileName = ".parquet"
)

// tableOf returns the name of the table for the records of a topic, which is also that of its folder.
func tableOf(topics oona.Topics, prefix, topic string) string {
	switch topic {
	case topics.SeedMetrics:
		return framesTable
	case topics.LayerHealth:
		return "layer_health"
	case topics.LayerPerformance:
		return "layer_performance"
	}
	return escape(strings.ReplaceAll(strings.TrimPrefix(topic, prefix+"."), ".", "_"))
}

// layerFolder returns the folder of a layer's files, with slashes, or that of a run's files if the
// layer is empty. Tools take the run and the layer of a row from it.
func layerFolder(table string, run oona.RunID, layer oona.LayerID) string {
	folder := path.Join(table, "run="+escape(string(run)))
	if layer == "" {
		return folder
	}
	return path.Join(folder, "layer="+escape(string(layer)))
}

// partPrefix returns the beginning of the names of a partition's files.
func partPrefix(partition int32) string { return fmt.Sprintf("part-%d-", partition) }

func partName(partition int32, first, last int64) string {
	return fmt.Sprintf("%s%d-%d%s", partPrefix(partition), first, last, parquetFileName)
}

// escape replaces bytes that have a meaning in paths by %XX. Tools expect this for hive
// partitions.
func escape(id string) string {
	var b strings.Builder
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
