package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

// place is a request's place among the large bodies that are decoded at the same time. There are few
// for all clients together. So a request leaves its place before it waits for anything but memory: for
// a slot, for the schema registry, for other requests of its client, or long for processor time.
// Afterwards it takes a place again, like a request that comes. A small body has a nil place.
type place struct {
	by     *client
	held   bool
	missed entry         // why the last attempt to take it failed; entered if it did not
	slept  time.Duration // how long the client has waited for processor time since it was taken
}

// errNoPlace is returned if a body gets no place again.
var errNoPlace = errors.New("no place among the large bodies")

// enterLarge waits until a body of this size may be decoded.
func (s *Stage) enterLarge(ctx context.Context, size int, held *lease) (*place, *intake.Refusal) {
	if size <= largeBody {
		return nil, nil
	}
	p := &place{by: held.by}
	if !p.take(ctx) {
		return nil, s.noPlace(held, p)
	}
	return p, nil
}

// take waits for the place, for up to a second.
func (p *place) take(ctx context.Context) bool {
	return p == nil || p.held || p.took(p.by.enter(ctx, forLarge, shareWait))
}

// try takes the place if one is free.
func (p *place) try() bool {
	return p == nil || p.held || p.took(p.by.try(forLarge))
}

func (p *place) took(result entry) bool {
	p.held, p.missed, p.slept = result == entered, result, 0
	return p.held
}

// leave gives the place back, if it is held.
func (p *place) leave() {
	if p != nil && p.held {
		p.held = false
		p.by.exit(forLarge)
	}
}

// gone reports whether the request got no place again.
func (p *place) gone() bool { return p != nil && p.missed != entered }

// noPlace refuses a request that has got no place.
func (s *Stage) noPlace(held *lease, p *place) *intake.Refusal {
	switch {
	case held.yielded():
		return s.noMemory(held)
	case p.missed == shareTaken:
		return s.shareTaken()
	}
	return intake.Refuse(intake.ReasonOverloaded, "ingest is decoding as many large bodies as it has processors for (above %d bytes); this request was refused as a whole; send it again later", largeBody).After(time.Second)
}

// awaitTurn waits until the body may be decoded beside others of its client. They may take long, so it
// leaves its place meanwhile.
func (w *work) awaitTurn() bool {
	if w.by.tryTurn() {
		return true
	}
	w.place.leave()
	return w.by.turn(w.ctx)
}

// settle takes the place again after a wait. Meanwhile another request of the client may be decoded.
func (w *work) settle() bool {
	if w.place.try() {
		return true
	}
	w.rest()
	defer w.goOn()
	return w.place.take(w.ctx)
}

// lookUp waits for the schema registry. Meanwhile another body may be decoded.
func (w *work) lookUp(find findSchema, id avro.SchemaID) (*avro.FrameSchema, *intake.Refusal) {
	defer w.by.exit(forLookup)
	w.place.leave()
	w.rest()
	defer w.goOn()
	return find(id)
}
