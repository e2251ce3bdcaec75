package verdict

// lean adds up how far values in a row are on one side of the level. In a layer with much noise, six
// widths are a large distance. A fault that grows slowly stays within it, because the level and the
// width follow the values. But noise alone does not stay on one side. This is a cumulative sum
// (CUSUM) as in statistical process control: a distance that is ignored is subtracted from each
// value.
type lean struct {
	sum  int32 // in sixteenths of a width
	side Side
}

// leaning has the constants of a lean, in sixteenths of a width: the distance that is ignored, and the
// sum from which on there is a fault.
type leaning struct{ ignores, warns int32 }

const (
	leanLearnt = 24  // after so many values, smaller distances are added up, too
	leanClip   = 80  // a value counts for at most five widths
	leanMost   = 160 // the largest sum
)

// leaningAfter returns the constants after n values. In its first windows, a healthy layer has
// trends, which are at most about one width away from the level.
func leaningAfter(n uint16) leaning {
	if n < leanLearnt {
		return leaning{ignores: 24, warns: 72}
	}
	return leaning{ignores: 8, warns: 128}
}

// add adds the outcome of a series for a value. width is the width before the value, and matters the
// smallest distance that can be a fault. add reports whether values have been on a side that is a fault
// for too long.
func (l *lean) add(o outcome, c leaning, width, matters int32, faults Side) bool {
	side, by := Down, -o.excess
	if o.excess > 0 {
		side, by = Up, o.excess
	}
	if side != l.side || side&faults == 0 {
		l.side, l.sum = side, 0
	}
	if side&faults == 0 {
		return false
	}
	off := min(leanClip, int32(int64(by)*16/int64(max(width, 1)))) - c.ignores
	if off > 0 && by <= matters {
		off = 0 // the distance is unusual, but too small to be a fault
	}
	l.sum = max(0, min(l.sum+off, leanMost))
	return l.sum >= c.warns && by > matters
}
