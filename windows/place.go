package windows

import "github.com/morphogenetic/oona"

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

// rescale goes on with buckets of another width.
func (h *horizon) rescale(c rescaling) {
	var scaled horizon
	for i := range h {
		b := &h[i]
		number, kept := c.bucket(b.bucket)
		if !b.begun || !kept {
			continue
		}
		// Those that are kept are so few that each has a place of its own.
		if to := &scaled[number%int64(len(scaled))]; !to.begun || b.first.offset < to.first.offset {
			to.begun, to.bucket, to.first = true, number, b.first
		}
	}
	*h = scaled
}

// rescaling is a change of the width of the log clock's buckets. What was noted
// in an old bucket goes to the new one of the old one's last instant that has
// passed: so a producer stays active for at least the new horizon after its last
// frame, and for at most an old bucket's width longer.
type rescaling struct {
	from, to oona.Micros // widths
	now      oona.Micros // of the log clock
}

// bucket returns the number of the new bucket for an old one, and whether both
// are within the horizon.
func (c rescaling) bucket(old int64) (number int64, kept bool) {
	current, last := int64(c.now/c.from), c.now
	if old < current {
		last = oona.Micros(old+1)*c.from - 1
	}
	number = int64(last / c.to)
	return number, old >= current-horizonBuckets && number >= int64(c.now/c.to)-horizonBuckets
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
