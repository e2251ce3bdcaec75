package verdict

// lean adds up how far values are on one side. In a layer with much noise, six widths are
// much: a fault that grows slowly stays within them, as the level and the width follow it.
// But noise does not stay on one side. This is a cumulative sum as in statistical process
// control, of widths beyond what is ignored.
type lean struct {
	sum  int32 // in sixteenths of a width
	side Side
}

// leaning are the constants of a lean, in sixteenths of a width.
type leaning struct{ ignores, warns int32 }

const (
	leanLearnt = 24  // values from which on trends are seen too
	leanClip   = 80  // a value counts for at most five widths
	leanMost   = 160 // the greatest sum
)

// leaningAfter returns the constants after n values. In its first windows, a healthy layer has
// trends, which are at most about one width away from the level.
func leaningAfter(n uint16) leaning {
	if n < leanLearnt {
		return leaning{ignores: 24, warns: 72}
	}
	return leaning{ignores: 8, warns: 128}
}

// add takes what a series said of a value, the width before, and the least distance that
// matters. It reports whether values have leant for long to a side that is a fault.
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
		off = 0 // unusual, but it does not matter
	}
	l.sum = max(0, min(l.sum+off, leanMost))
	return l.sum >= c.warns && by > matters
}
