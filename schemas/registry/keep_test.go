package registry

import (
	"testing"

	"github.com/morphogenetic/oona/schemas/avro"
)

// Ids that a client has invented do not displace schemas.
func TestInventedIDsDisplaceNoSchema(t *testing.T) {
	r := &Registry{known: make(map[avro.SchemaID]*entry)}
	for n := range int32(maxKnown / 2) {
		r.keep(avro.SchemaID{Number: n}, &entry{schema: new(avro.FrameSchema)})
	}
	for n := range int32(2 * maxKnown) {
		r.keep(avro.SchemaID{Number: maxKnown + n}, &entry{err: ErrUnknownID})
	}
	for n := range int32(maxKnown / 2) {
		if e := r.known[avro.SchemaID{Number: n}]; e == nil || e.schema == nil {
			t.Fatalf("schema %d is displaced", n)
		}
	}
	if len(r.known) != maxKnown {
		t.Errorf("%d entries are kept, want %d", len(r.known), maxKnown)
	}
}
