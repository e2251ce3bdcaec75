package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/units"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/tensors"
)

type replayResolve struct {
	Resolve bool              `env:"-" group:"What to do" help:"Also write the tensors of the frames into the folder tensors of the directory: a .npy file for each, which NumPy reads, and an index. Claims are fetched from the tensor store and verified."`
	Store   claimcheck.Config `embed:"" group:"Tensors"`
}

// errNoFolder means that no frames are written, so their tensors have no place.
var errNoFolder = errors.New("--resolve is for files of frames: --avro DIR or --parquet DIR, without --aggregate")

// shownLost is how many tensors that cannot be resolved are logged one by one.
const shownLost = 10

// resolving is an output that resolves tensors on the way to another output.
type resolving struct {
	replay.Output
	resolver *tensors.Resolver // nil: tensors are not resolved
}

// output returns an output that resolves tensors if that is asked for.
func (c *replayResolve) output(job *replaying, next replay.Output, dir string) (*resolving, error) {
	if !c.Resolve {
		return &resolving{Output: next}, nil
	}
	r := &tensors.Resolver{Dir: dir}
	store, err := claimcheck.Open(c.Store)
	if err != nil {
		return nil, err
	}
	if store != nil {
		r.Store = store
	}
	told := 0
	r.Lost = func(f *oona.Frame, t *oona.Tensor, why error) {
		if told++; told <= shownLost {
			job.logger.Warn("a tensor has no file", "run", f.Run, "layer", f.Layer, "tensor", t.Name, "seed", t.Seed, "err", why)
		}
	}
	return &resolving{&tensors.Output{Next: next, Topics: job.topics, Resolver: r}, r}, nil
}

// report says what was resolved.
func (r *resolving) report(w io.Writer) {
	if r.resolver == nil {
		return
	}
	c := r.resolver.Counts
	fmt.Fprintf(w, "oona: tensors: %d files written (%s); for %d tensors the file was there already\n", c.Written, units.Base2Bytes(c.Bytes).Round(1), c.Present)
	if c.Lost > 0 {
		fmt.Fprintf(w, "oona: tensors without a file: %d; the store does not have them, or not as they were claimed; the index says which (lost)\n", c.Lost)
	}
}
