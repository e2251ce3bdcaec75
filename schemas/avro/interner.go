package avro

import "github.com/morphogenetic/oona"

// interner returns the same string for the same bytes, so that ids that come
// again cost no allocation.
type interner struct {
	seen  map[string]string
	bytes int // that seen takes, about
}

// internedText is about what a map takes for a text, besides its bytes.
const internedText = 48

// internedTexts bounds an interner: at 128 bytes each, two megabytes. So the ids of
// 10,000 layers stay.
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
		return s // no valid id: the frame will be refused
	}
	if in.seen == nil {
		in.seen = make(map[string]string)
	}
	if len(in.seen) >= internedTexts {
		clear(in.seen) // those in use come back with their next frame
		in.bytes = 0
	}
	in.seen[s] = s
	in.bytes += len(s) + internedText
	return s
}
