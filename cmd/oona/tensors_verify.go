package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/replay/tensors"
)

type tensorsVerify struct {
	Referenced bool     `env:"-" help:"Read only the tensors that records refer to."`
	Offline    bool     `env:"-" help:"Do not read the topics: only compare each tensor with its SHA-256."`
	Archives   []string `name:"archive" env:"-" placeholder:"DIR" help:"Also read this archive, which must have been written by oona replay --archive. May be given several times."`
	JSON       bool     `name:"json" env:"-" help:"Print the result as JSON."`
}

// Validate is called by kong when flags, environment and file have been read.
func (v *tensorsVerify) Validate() error {
	if v.Offline && (v.Referenced || len(v.Archives) > 0) {
		return errors.New("--offline excludes --referenced and --archive")
	}
	return nil
}

// verifiedTensors is the result of verify.
type verifiedTensors struct {
	Verified     tensors.Amount `json:"verified"` // were read, and are right
	Damaged      []faultyTensor `json:"damaged"`
	Missing      []faultyTensor `json:"missing"` // an accepted frame refers to them
	Unreferenced tensors.Amount `json:"unreferenced"`
	// Refused are tensors that are not in the store, and only records refer to them that
	// were not accepted, or that are of another store.
	Refused int64 `json:"missing_of_refused_records"`

	mu sync.Mutex
}

// faultyTensor is a tensor with what is wrong.
type faultyTensor struct {
	listedTensor
	Error string `json:"error"`
}

// errTensorFaults is returned if tensors are damaged or missing.
var errTensorFaults = errors.New("tensors are damaged or missing")

// Run verifies.
func (v *tensorsVerify) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	store, b, err := c.Tensors.open(logger)
	if err != nil {
		return err
	}
	var references *tensors.References
	if !v.Offline {
		from, err := c.Tensors.sources(ctx, b, v.Archives, to)
		if err != nil {
			return err
		}
		if err := from.read(ctx); err != nil {
			return err
		}
		references = from.references
	}
	result, err := v.verify(ctx, store, references, newProgress(to.messages))
	if err != nil {
		return err
	}
	if v.JSON {
		err = writeJSON(to.out, result)
	} else {
		err = result.print(to.out, v.Offline)
	}
	if err == nil && len(result.Damaged)+len(result.Missing) > 0 {
		err = errTensorFaults
	}
	return err
}

// concurrentReads is how many tensors are read at the same time.
const concurrentReads = 8

// verify reads the store. references is nil if they are not known.
func (v *tensorsVerify) verify(ctx context.Context, store *claimcheck.Store, references *tensors.References, shown *progress) (*verifiedTensors, error) {
	result := &verifiedTensors{Damaged: []faultyTensor{}, Missing: []faultyTensor{}}
	held := make(map[tensors.Digest]struct{})
	shown.begin("verifying tensors", 0)
	defer shown.end()
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(concurrentReads)
	err := store.Each(reading, func(o claimcheck.Object) error {
		held[o.SHA256] = struct{}{}
		shown.record()
		if references != nil && references.Uses[o.SHA256] == nil {
			result.Unreferenced.Objects++
			result.Unreferenced.Bytes += o.Size
			if v.Referenced {
				return nil
			}
		}
		group.Go(func() error { return result.take(o, store.Verify(reading, o), store, references) })
		return nil
	})
	if failed := group.Wait(); failed != nil {
		return nil, failed
	}
	if err != nil {
		return nil, err
	}
	if references != nil {
		result.findMissing(store, references, held)
	}
	return result, nil
}

// take notes the result for an object. Outages end the verification.
func (r *verifiedTensors) take(o claimcheck.Object, err error, store *claimcheck.Store, references *tensors.References) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.Verified.Objects++
		r.Verified.Bytes += o.Size
	case errors.Is(err, claimcheck.ErrMismatch), errors.Is(err, claimcheck.ErrTooLarge):
		r.Damaged = append(r.Damaged, faultyTensor{list(store, o, references), err.Error()})
	case errors.Is(err, claimcheck.ErrNotFound): // removed since it was listed
	default:
		return err
	}
	return nil
}

// findMissing finds what records refer to and the store does not have.
func (r *verifiedTensors) findMissing(store *claimcheck.Store, references *tensors.References, held map[tensors.Digest]struct{}) {
	absent := slices.SortedFunc(maps.Keys(references.Uses), func(a, b tensors.Digest) int { return bytes.Compare(a[:], b[:]) })
	for _, digest := range absent {
		if _, there := held[digest]; there {
			continue
		}
		use := references.Uses[digest]
		if !use.Accepted || use.Tensor != nil && store.Check(*use.Tensor.Claim) != nil {
			r.Refused++
			continue
		}
		one := listedTensor{SHA256: hex.EncodeToString(digest[:]), Key: claimcheck.Key(digest)}
		one.describe(use)
		r.Missing = append(r.Missing, faultyTensor{one, claimcheck.ErrNotFound.Error()})
	}
}

func (r *verifiedTensors) print(w io.Writer, offline bool) error {
	for _, one := range r.Damaged {
		fmt.Fprintf(w, "damaged  %s  %s\n", one.SHA256, one.about())
	}
	for _, one := range r.Missing {
		fmt.Fprintf(w, "missing  %s  %s\n", one.SHA256, one.about())
	}
	_, err := fmt.Fprintf(w, "verified: %s; damaged: %d", amount(r.Verified), len(r.Damaged))
	if err == nil && !offline {
		_, err = fmt.Fprintf(w, "; missing: %d; unreferenced: %s", len(r.Missing), amount(r.Unreferenced))
		if r.Refused > 0 {
			fmt.Fprintf(w, "\n%s not in the store, which only records that were refused, or claims of other stores, refer to", plural(r.Refused, "tensor"))
		}
	}
	fmt.Fprintln(w)
	return err
}
