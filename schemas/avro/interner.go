package avro

import "github.com/morphogenetic/oona"

// interner returns the same string for the same bytes, so that an id is allocated only
// once.
type interner struct {
	seen  map[string]string
	bytes int // approximate size of seen
}

// internedText is the approximate overhead of a string in a map, in bytes.
const internedText = 48

// internedTexts is the maximum number of strings that an interner keeps. If each needs 128
// bytes, these are two megabytes. This is enough for the ids of 10,000 layers.
const internedTexts = 16_384

func (in *interner) text(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if s, ok := in.seen[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(s) > oona.MaxIDLength {
		return s // not a valid id: Validate will return an error
	}
	if in.seen == nil {
		in.seen = make(map[string]string)
	}
	if len(in.seen) >= internedTexts {
		clear(in.seen) // the next frames will add the strings that are still in use
		in.bytes = 0
	}
	in.seen[s] = s
	in.bytes += len(s) + internedText
	return s
}
