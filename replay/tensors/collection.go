package tensors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
)

// Store is the tensor store, such as a [claimcheck.Store], which documents the methods.
type Store interface {
	Each(ctx context.Context, take func(claimcheck.Object) error) error
	SetAside(ctx context.Context, all []claimcheck.Object, before time.Time) ([]claimcheck.Object, error)
	PutBack(ctx context.Context, all []claimcheck.Object) error
	Aside(ctx context.Context, take func(claimcheck.Object) error) error
	Discard(ctx context.Context, all []claimcheck.Object) error
}

// Collection removes tensors from a store if no record refers to them.
//
// A tensor may be needed again at the same time: ingest finds it in the store, and publishes a
// record that refers to it after the topics have been read. So a tensor is first set aside. After
// a time, all such records are on the bus. Then the topics are read to their new ends. Tensors to
// which the new records refer are put back, and the others are deleted.
type Collection struct {
	Store      Store
	References *References
	// ReadOn reads the topics from where they were read before to their new ends, into
	// References.
	ReadOn func(ctx context.Context) error
	// Settle must be longer than the time between the moment at which ingest finds a tensor and the
	// moment at which the record that refers to it is on the bus.
	Settle time.Duration
	// Moved is called after each step with the number of its objects. May be nil.
	Moved func(step string, objects int)
}

// Steps of a Collection.
const (
	StepAside   = "set aside"
	StepBack    = "put back"
	StepDeleted = "deleted"
)

// Plan says which tensors a store has, and what a Collection would do with them.
type Plan struct {
	Store        Amount `json:"store"`
	Referenced   Amount `json:"referenced"`   // stay: records refer to them
	Young        Amount `json:"young"`        // stay: no record refers to them, but they are not old enough
	Unreferenced Amount `json:"unreferenced"` // would be removed
	// Aside counts the tensors that an earlier, interrupted collection has set aside. They are put
	// back or deleted, too.
	Aside Amount `json:"set_aside"`
	// AsideReferenced counts the tensors in Aside that would be put back.
	AsideReferenced Amount `json:"set_aside_referenced"`

	// Candidates has the tensors that Unreferenced counts. Their age was compared with Before.
	Candidates []claimcheck.Object `json:"-"`
	Before     time.Time           `json:"before"`
}

// Amount is a number of tensors and their size.
type Amount struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (a *Amount) add(o claimcheck.Object) {
	a.Objects++
	a.Bytes += o.Size
}

// Plan lists the store. References must be complete.
func (c *Collection) Plan(ctx context.Context, before time.Time) (*Plan, error) {
	p := &Plan{Before: before}
	err := c.Store.Each(ctx, func(o claimcheck.Object) error {
		p.Store.add(o)
		switch {
		case c.References.Uses[o.SHA256] != nil:
			p.Referenced.add(o)
		case o.Modified.IsZero() || o.Modified.After(before):
			p.Young.add(o)
		default:
			p.Unreferenced.add(o)
			p.Candidates = append(p.Candidates, o)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the tensors: %w", err)
	}
	err = c.Store.Aside(ctx, func(o claimcheck.Object) error {
		p.Aside.add(o)
		if c.References.Uses[o.SHA256] != nil {
			p.AsideReferenced.add(o)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the tensors that are set aside: %w", err)
	}
	return p, nil
}

// Result says what a Collection has done.
type Result struct {
	SetAside Amount `json:"set_aside"`
	Back     Amount `json:"put_back"` // put back, because a record refers to them now
	Deleted  Amount `json:"deleted"`
	// Other counts tensors that another collection has put back, deleted or set aside again in the
	// meantime.
	Other Amount `json:"by_another_gc"`
}

// batch is how many objects are moved or deleted at a time.
const batch = 1000

// ErrAside is returned if tensors remain set aside. The next collection puts them back or
// deletes them.
var ErrAside = errors.New("tensors are set aside")

// Run carries out a plan. If it returns an error that wraps ErrAside, the tensors that it has set aside
// are missing from the store until the next Run.
func (c *Collection) Run(ctx context.Context, p *Plan) (done Result, err error) {
	for some := range slices.Chunk(p.Candidates, batch) {
		moved, failed := c.Store.SetAside(ctx, some, p.Before)
		for _, o := range moved {
			done.SetAside.add(o)
		}
		c.moved(StepAside, len(moved))
		if err = failed; err != nil {
			break // tensors that are already set aside must not remain so
		}
	}
	if failed := c.settle(ctx, &done); failed != nil {
		return done, c.remaining(done, p, errors.Join(err, failed))
	}
	return done, err
}

// remaining wraps an error in ErrAside if tensors remain set aside.
func (c *Collection) remaining(done Result, p *Plan, err error) error {
	n := done.SetAside.Objects + p.Aside.Objects - done.Back.Objects - done.Deleted.Objects - done.Other.Objects
	if n <= 0 {
		return err
	}
	return fmt.Errorf("%w (%d); records may refer to some of them: run the collection again, which puts these back and deletes the others: %w", ErrAside, n, err)
}

// settle waits, and reads the topics to their new ends. Then it puts back the tensors that are set aside
// and to which a record refers, and deletes the others. It ignores tensors that another collection sets
// aside in the meantime.
func (c *Collection) settle(ctx context.Context, done *Result) error {
	var back, gone []claimcheck.Object
	aside, err := c.aside(ctx)
	if err != nil {
		return err
	}
	if !bus.Pause(ctx, c.Settle) {
		return ctx.Err()
	}
	if err := c.ReadOn(ctx); err != nil {
		return err
	}
	still, err := c.aside(ctx)
	if err != nil {
		return err
	}
	for digest, o := range aside {
		switch {
		case still[digest] != o:
			done.Other.add(o)
		case c.References.Uses[digest] != nil:
			back = append(back, o)
		default:
			gone = append(gone, o)
		}
	}
	for some := range slices.Chunk(back, batch) {
		if err := c.Store.PutBack(ctx, some); err != nil {
			return err
		}
		for _, o := range some {
			done.Back.add(o)
		}
		c.moved(StepBack, len(some))
	}
	for some := range slices.Chunk(gone, batch) {
		if err := c.Store.Discard(ctx, some); err != nil {
			return err
		}
		for _, o := range some {
			done.Deleted.add(o)
		}
		c.moved(StepDeleted, len(some))
	}
	return nil
}

// aside lists the tensors that are set aside.
func (c *Collection) aside(ctx context.Context) (map[Digest]claimcheck.Object, error) {
	all := make(map[Digest]claimcheck.Object)
	err := c.Store.Aside(ctx, func(o claimcheck.Object) error { all[o.SHA256] = o; return nil })
	if err != nil {
		return nil, fmt.Errorf("list the tensors that are set aside: %w", err)
	}
	return all, nil
}

func (c *Collection) moved(step string, objects int) {
	if c.Moved != nil && objects > 0 {
		c.Moved(step, objects)
	}
}
