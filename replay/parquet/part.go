package parquet

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/parquet-go/parquet-go"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/replay/manifest"
)

// partKey says where a part belongs.
type partKey struct {
	table string
	run   oona.RunID
	layer oona.LayerID
}

// part is a file that is not written yet.
type part struct {
	partKey
	fingerprint uint64 // fingerprint of the schema of the first record
	first, last int64  // offsets of the first and the last record
	records     int64
	rows        int
	values      int // number of values in memory, which Options.HeldValues limits
	content     content
}

// content has the rows of a part.
type content interface {
	writeTo(out io.Writer, o *Output, about []property) error
	metrics() []string // names of the metrics, sorted
}

// rows has rows of type T, whose fields are the columns.
type rows[T any] struct {
	all   []T
	names []string
}

func (r *rows[T]) metrics() []string { return r.names }

func (r *rows[T]) writeTo(out io.Writer, o *Output, about []property) error {
	w := parquet.NewGenericWriter[T](out, o.writerOptions()...)
	for _, p := range about {
		w.SetKeyValueMetadata(p.key, p.value)
	}
	if _, err := w.Write(r.all); err != nil {
		return err
	}
	return w.Close()
}

// write writes a part as a file.
func (o *Output) write(p *part, topic string, partition int32) (manifest.File, error) {
	about, err := o.describe(p, topic, partition)
	if err != nil {
		return manifest.File{}, err
	}
	name := layerFolder(p.table, p.run, p.layer) + "/" + partName(partition, p.first, p.last)
	file, err := o.writeFile(name, func(out io.Writer) error {
		return p.content.writeTo(out, o, about)
	})
	file.First, file.End, file.Records, file.Rows = p.first, p.last+1, p.records, int64(p.rows)
	return file, err
}

// describedMetric describes a metric in the metadata.
type describedMetric struct {
	Group     string `json:"group"`
	Unit      string `json:"unit,omitempty"`
	Direction string `json:"direction"`
	Help      string `json:"help,omitempty"`
}

var directions = map[oona.Direction]string{oona.Neutral: "neutral", oona.HigherIsBetter: "higher_is_better", oona.LowerIsBetter: "lower_is_better"}

// property is an entry of the metadata of a file.
type property struct{ key, value string }

// describe returns the metadata of a file. All files have the same keys.
func (o *Output) describe(p *part, topic string, partition int32) ([]property, error) {
	metrics := make(map[string]describedMetric)
	for _, name := range p.content.metrics() {
		m := o.Metric(name)
		metrics[name] = describedMetric{m.Group.String(), m.Unit, directions[m.Direction], m.Help}
	}
	catalogue, err := json.Marshal(metrics)
	if err != nil {
		return nil, fmt.Errorf("parquet: %w", err)
	}
	states, err := json.Marshal(stateNames())
	if err != nil {
		return nil, fmt.Errorf("parquet: %w", err)
	}
	return []property{
		{"oona.version", o.Oona},
		{"oona.topic", topic},
		{"oona.partition", strconv.Itoa(int(partition))},
		{"oona.first_offset", strconv.FormatInt(p.first, 10)},
		{"oona.last_offset", strconv.FormatInt(p.last, 10)},
		{"oona.schema_fingerprint", fmt.Sprintf("%016x", p.fingerprint)},
		{"oona.run", string(p.run)},
		{"oona.layer", string(p.layer)},
		{"oona.catalogue", o.Catalogue.String()},
		{"oona.metrics", string(catalogue)},
		{"oona.states", string(states)},
	}, nil
}
