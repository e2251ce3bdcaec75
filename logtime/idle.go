package logtime

import "github.com/morphogenetic/oona"

// BucketsPerHorizon is how many buckets of the log clock an idle horizon spans.
const BucketsPerHorizon = 4

// remembered is how many buckets are kept: the buckets of a horizon, and the current
// one.
const remembered = BucketsPerHorizon + 1

// BucketWidth returns the width of a bucket for an idle horizon: a quarter of it,
// rounded up.
func BucketWidth(horizon oona.Micros) oona.Micros {
	return (horizon + BucketsPerHorizon - 1) / BucketsPerHorizon
}

// ReplayPoint is where a reader of the log may start: the offset of a record, and
// the clock before that record.
type ReplayPoint struct {
	Offset int64
	Clock  Clock
}

// IdleBuckets remembers the first record of each bucket, as far back as the idle
// horizon. Its zero value has seen no record.
type IdleBuckets [remembered]struct {
	begun  bool
	bucket int64
	first  ReplayPoint
}

// Begun reports whether the bucket has a record.
func (h *IdleBuckets) Begun(bucket int64) bool {
	b := &h[bucket%remembered]
	return b.begun && b.bucket == bucket
}

// Begin records the first record of a bucket. Buckets begin in ascending order.
func (h *IdleBuckets) Begin(bucket int64, first ReplayPoint) {
	b := &h[bucket%remembered]
	b.begun, b.bucket, b.first = true, bucket, first
}

// Earliest returns the earliest first record of the buckets that are within the
// horizon when the clock is in bucket current. It returns otherwise if that is
// earlier than all of them.
func (h *IdleBuckets) Earliest(current int64, otherwise ReplayPoint) ReplayPoint {
	for i := range h {
		b := &h[i]
		if b.begun && b.bucket >= current-BucketsPerHorizon && b.first.Offset < otherwise.Offset {
			otherwise = b.first
		}
	}
	return otherwise
}

// Rescale converts h to buckets of another width.
func (h *IdleBuckets) Rescale(c Rescaling) {
	var scaled IdleBuckets
	for i := range h {
		b := &h[i]
		number, kept := c.bucket(b.bucket)
		if !b.begun || !kept {
			continue
		}
		// No two of the buckets that are kept have the same number modulo remembered.
		if to := &scaled[number%remembered]; !to.begun || b.first.Offset < to.first.Offset {
			to.begun, to.bucket, to.first = true, number, b.first
		}
	}
	*h = scaled
}

// Rescaling is a change of the width of the buckets. What was recorded in an old
// bucket goes to the new bucket that holds the last instant of the old one that
// has passed. So a member that was active stays active for at least the new horizon
// since it was last seen, and for at most the width of an old bucket longer.
type Rescaling struct {
	From, To oona.Micros // widths
	Now      oona.Micros // of the log clock
}

// bucket returns the number of the new bucket for an old one, and whether both
// are within the horizon.
func (c Rescaling) bucket(old int64) (number int64, kept bool) {
	current, last := int64(c.Now/c.From), c.Now
	if old < current {
		last = oona.Micros(old+1)*c.From - 1
	}
	number = int64(last / c.To)
	return number, old >= current-BucketsPerHorizon && number >= int64(c.Now/c.To)-BucketsPerHorizon
}
