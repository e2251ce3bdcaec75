package parquet

import (
	"io"

	"github.com/parquet-go/parquet-go"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/replay/manifest"
)

// producers gives each producer of frames a number, in the order in which they appear.
type producers struct {
	all     []manifest.Producer
	numbers map[manifest.Producer]int32
}

func (p *producers) load(all []manifest.Producer) {
	p.all, p.numbers = all, make(map[manifest.Producer]int32, len(all))
	for i, one := range all {
		p.numbers[one] = int32(i)
	}
}

func (p *producers) number(f *oona.Frame) int32 {
	one := manifest.Producer{ID: string(f.Producer), Epoch: int64(f.Epoch), Timeline: string(f.Timeline)}
	n, known := p.numbers[one]
	if !known {
		n = int32(len(p.all))
		p.all, p.numbers[one] = append(p.all, one), n
	}
	return n
}

type producerRow struct {
	Producer int32  `parquet:"producer"`
	ID       string `parquet:"producer_id"`
	Epoch    int64  `parquet:"producer_epoch,timestamp(microsecond)"`
	Timeline string `parquet:"timeline"`
}

// writeProducers writes the table of producers, if there are new ones.
func (o *Output) writeProducers() error {
	if len(o.producers.all) == len(o.manifest.Producers) {
		return nil
	}
	rows := make([]producerRow, len(o.producers.all))
	for i, p := range o.producers.all {
		rows[i] = producerRow{int32(i), p.ID, p.Epoch, p.Timeline}
	}
	o.manifest.Producers = o.producers.all
	return writeTable(o, producersTable, rows)
}

type stateRow struct {
	State    int32  `parquet:"state"`
	Name     string `parquet:"state_name"`
	Active   bool   `parquet:"active"`
	Terminal bool   `parquet:"terminal"`
}

func (o *Output) writeStates() error {
	rows := make([]stateRow, oona.StateCount)
	for i := range rows {
		s := oona.State(i)
		rows[i] = stateRow{int32(i), s.String(), s.Active(), s.Terminal()}
	}
	return writeTable(o, statesTable, rows)
}

func stateNames() []string {
	names := make([]string, oona.StateCount)
	for i := range names {
		names[i] = oona.State(i).String()
	}
	return names
}

// writeTable writes a small table.
func writeTable[T any](o *Output, name string, rows []T) error {
	_, err := o.writeFile(name, func(out io.Writer) error {
		w := parquet.NewGenericWriter[T](out, o.writerOptions()...)
		if _, err := w.Write(rows); err != nil {
			return err
		}
		return w.Close()
	})
	return err
}
