package parquet

import (
	"slices"

	"github.com/parquet-go/parquet-go"
)

// The columns of frames that are not metrics, in their order.
var baseColumns = []string{"time", "step", "sequence", "producer", "seed", "state"}

func baseNodes() map[string]parquet.Node {
	delta := func(n parquet.Node) parquet.Node { return parquet.Encoded(n, &parquet.DeltaBinaryPacked) }
	return map[string]parquet.Node{
		"time":     delta(parquet.TimestampAdjusted(parquet.Microsecond, true)),
		"step":     delta(parquet.Leaf(parquet.Int64Type)),
		"sequence": delta(parquet.Leaf(parquet.Int64Type)),
		"producer": delta(parquet.Leaf(parquet.Int32Type)),
		"seed":     delta(parquet.Leaf(parquet.Int32Type)),
		"state":    delta(parquet.Leaf(parquet.Int32Type)),
	}
}

// columnName returns the name of a metric's column. If a metric has the name of another column, its
// column gets a name that no metric can have.
func columnName(metric string) string {
	if slices.Contains(baseColumns, metric) || metric == "run" || metric == "layer" {
		return metric + " (metric)"
	}
	return metric
}

// ordered is a group whose fields have an order.
type ordered struct {
	parquet.Group
	order []string
}

func (o ordered) Fields() []parquet.Field {
	fields := o.Group.Fields()
	slices.SortFunc(fields, func(a, b parquet.Field) int {
		return slices.Index(o.order, a.Name()) - slices.Index(o.order, b.Name())
	})
	return fields
}
