package oona

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Group is the rollup that a metric belongs to.
type Group uint8

// The groups of metrics. An unknown metric belongs to Performance.
const (
	Health Group = iota
	Performance
)

func (g Group) String() string {
	if g == Health {
		return "health"
	}
	return "performance"
}

// Direction says which values of a metric are worse.
type Direction uint8

// The directions of metrics.
const (
	Neutral        Direction = iota // no seed is worse than another
	HigherIsBetter                  // the worst seeds have the least values
	LowerIsBetter                   // the worst seeds have the greatest values
)

// Metric is the entry of a metric in a catalogue.
type Metric struct {
	Name      string
	Group     Group
	Unit      string // base unit, e.g. "seconds", "ratio"; may be empty
	Direction Direction
	Help      string
}

// CatalogueHash is a hash of the groups and directions of a catalogue's metrics.
// Rollups depend on nothing else in a catalogue.
type CatalogueHash [8]byte

// FirstCatalogue is the hash of the first built-in catalogue. It holds for logs
// that were written before logs named their catalogue.
var FirstCatalogue = CatalogueHash{0xb4, 0x0f, 0xe4, 0x1f, 0x50, 0xf1, 0x31, 0x33}

func (h CatalogueHash) String() string { return hex.EncodeToString(h[:]) }

// ParseCatalogueHash is the inverse of String.
func ParseCatalogueHash(text string) (CatalogueHash, error) {
	var h CatalogueHash
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(h) {
		return h, &FieldError{"catalogue", fmt.Sprintf("is %q; the hash of a catalogue has %d hexadecimal digits", text, 2*len(h))}
	}
	copy(h[:], b)
	return h, nil
}

// HashCatalogue returns the first eight bytes of the SHA-256 of the name, group
// and direction of each metric, ascending by name. The metrics may be in any
// order; their names must differ.
func HashCatalogue(metrics []Metric) CatalogueHash {
	sorted := slices.SortedFunc(slices.Values(metrics), func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	var content []byte
	for _, m := range sorted {
		content = binary.AppendUvarint(content, uint64(len(m.Name)))
		content = append(content, m.Name...)
		content = append(content, byte(m.Group), byte(m.Direction))
	}
	sum := sha256.Sum256(content)
	return CatalogueHash(sum[:8])
}
