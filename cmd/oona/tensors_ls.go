package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/alecthomas/units"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/replay/tensors"
)

type tensorsLs struct {
	Refs     bool     `env:"-" help:"Read all topics with frames, and say how many records refer to each tensor, and which is the first."`
	Archives []string `name:"archive" env:"-" placeholder:"DIR" help:"With --refs, also read this archive, which must have been written by oona replay --archive. May be given several times."`
	JSON     bool     `name:"json" env:"-" help:"Print one JSON object per tensor."`
}

// listedTensor is a tensor of the store.
type listedTensor struct {
	SHA256   string         `json:"sha256"`
	Bucket   string         `json:"bucket"`
	Key      string         `json:"key"`
	Size     int64          `json:"size"`
	Modified time.Time      `json:"modified"`
	Records  *int64         `json:"records,omitempty"` // that refer to it
	First    *tensors.Place `json:"first,omitempty"`   // of these records
	Run      oona.RunID     `json:"run_id,omitempty"`
	Layer    oona.LayerID   `json:"layer_id,omitempty"`
	Seed     *oona.SeedID   `json:"seed_id,omitempty"`
	Name     string         `json:"name,omitempty"`
	DType    string         `json:"dtype,omitempty"`
	Shape    []int64        `json:"shape,omitempty"`
}

// Run lists the store.
func (l *tensorsLs) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	store, b, err := c.Tensors.open(logger)
	if err != nil {
		return err
	}
	var references *tensors.References
	if l.Refs {
		from, err := c.Tensors.sources(ctx, b, l.Archives, to)
		if err != nil {
			return err
		}
		if err := from.read(ctx); err != nil {
			return err
		}
		references = from.references
	}
	var all tensors.Amount
	now := time.Now()
	err = store.Each(ctx, func(o claimcheck.Object) error {
		all.Objects++
		all.Bytes += o.Size
		return l.print(to.out, list(store, o, references), now)
	})
	if err == nil && !l.JSON {
		_, err = fmt.Fprintf(to.messages, "%s\n", amount(all))
	}
	return err
}

// list describes an object. references may be nil.
func list(store *claimcheck.Store, o claimcheck.Object, references *tensors.References) listedTensor {
	one := listedTensor{SHA256: hex.EncodeToString(o.SHA256[:]), Bucket: store.Of(o).Bucket, Key: o.Key(), Size: o.Size, Modified: o.Modified.UTC()}
	if references == nil {
		return one
	}
	one.Records = new(int64)
	if use := references.Uses[o.SHA256]; use != nil {
		one.describe(use)
	}
	return one
}

func (l *listedTensor) describe(use *tensors.Use) {
	l.Records, l.First = &use.Records, &use.First
	if t := use.Tensor; t != nil {
		l.Run, l.Layer, l.Seed, l.Name, l.DType, l.Shape = use.Run, use.Layer, &t.Seed, t.Name, t.DType, t.Shape
	}
}

// about says which tensor it is, for people.
func (l *listedTensor) about() string {
	var text []string
	if l.Records != nil {
		text = append(text, plural(*l.Records, "record"))
	}
	if l.First != nil {
		text = append(text, "first "+l.First.String())
	}
	if l.Seed != nil {
		text = append(text, fmt.Sprintf("%s of seed %d, run %s, layer %s: %s%v", l.Name, *l.Seed, l.Run, l.Layer, l.DType, l.Shape))
	}
	return strings.Join(text, "; ")
}

func (l *tensorsLs) print(w io.Writer, one listedTensor, now time.Time) error {
	if l.JSON {
		return json.NewEncoder(w).Encode(one)
	}
	_, err := fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%8s  %9s  %s  %s", shortAge(now.Sub(one.Modified)), units.Base2Bytes(one.Size).Round(1), one.SHA256, one.about()), " "))
	return err
}

// shortAge returns a duration in its greatest unit, such as 3d.
func shortAge(d time.Duration) string {
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= 2*unit.size {
			return fmt.Sprintf("%d%s", d/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%ds", max(0, d/time.Second))
}

// plural returns a number of things.
func plural(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// amount returns a number of tensors with their size.
func amount(a tensors.Amount) string {
	return fmt.Sprintf("%s, %s", plural(a.Objects, "tensor"), units.Base2Bytes(a.Bytes).Round(1))
}
