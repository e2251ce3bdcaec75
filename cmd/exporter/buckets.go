package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/morphogenetic/oona/pipeline/export"
)

// buckets are the bounds of the classic buckets. As text, they are the name of a set
// of bounds or a list.
type buckets []float64

// namedBuckets are the sets that have a name.
var namedBuckets = []struct {
	name   string
	bounds []float64
}{{"default", export.DefaultBuckets()}, {"fine", export.FineBuckets()}}

// UnmarshalText accepts a name, or bounds with commas between them.
func (b *buckets) UnmarshalText(text []byte) error {
	for _, set := range namedBuckets {
		if string(text) == set.name {
			*b = set.bounds
			return nil
		}
	}
	*b = nil
	if len(text) == 0 {
		return nil // native histograms only
	}
	for entry := range strings.SplitSeq(string(text), ",") {
		bound, err := strconv.ParseFloat(strings.TrimSpace(entry), 64)
		if err != nil {
			return fmt.Errorf("%q is not a bound; give default, fine, or bounds such as 0,0.5,1", entry)
		}
		*b = append(*b, bound)
	}
	return nil
}

// MarshalText returns the text that UnmarshalText accepts.
func (b buckets) MarshalText() ([]byte, error) {
	for _, set := range namedBuckets {
		if slices.Equal(b, set.bounds) {
			return []byte(set.name), nil
		}
	}
	var text []byte
	for i, bound := range b {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendFloat(text, bound, 'g', -1, 64)
	}
	return text, nil
}
