package parquet_test

import (
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/outputtest"
	"github.com/morphogenetic/oona/replay/parquet"
	"github.com/morphogenetic/oona/replay/records"
)

func TestConformance(t *testing.T) {
	topics := testTopics(t)
	outputtest.Run(t, func(dir string, selection records.Selection) replay.Output {
		options := parquet.Options{Compression: "zstd", RowGroupRows: 3, FileRows: 6, HeldValues: 40, FinishRows: 15, Selection: selection}
		return &parquet.Output{Dir: dir, Options: options, Topics: topics, Prefix: oona.DefaultPrefix, Metric: metric, Oona: "test"}
	})
}
