package windows

// place is where a reading of the log may begin: at a record, with the clock as
// it was before it.
type place struct {
	offset int64
	clock  clock
}

// horizon remembers where each bucket of the log clock began, as far back as
// the frontiers look. Its zero value has seen no record.
type horizon [horizonBuckets + 1]struct {
	begun  bool
	bucket int64
	first  place
}

// knows reports whether a record of the bucket was noted.
func (h *horizon) knows(bucket int64) bool {
	b := &h[bucket%int64(len(h))]
	return b.begun && b.bucket == bucket
}

// note takes the first record of a bucket.
func (h *horizon) note(bucket int64, first place) {
	b := &h[bucket%int64(len(h))]
	b.begun, b.bucket, b.first = true, bucket, first
}

// safe returns the first place of a bucket that frontiers at bucket look at, or
// else if there is none.
func (h *horizon) safe(bucket int64, otherwise place) place {
	for i := range h {
		b := &h[i]
		if b.begun && b.bucket >= bucket-horizonBuckets && b.first.offset < otherwise.offset {
			otherwise = b.first
		}
	}
	return otherwise
}
