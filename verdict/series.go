package verdict

// series follows a sequence of integers: which value is expected, and how far values usually are
// from it. A value is unit times the index of a bucket, so a difference of 32*unit is a factor of two.
type series struct {
	level int32 // the expected value
	width int32 // the usual distance from level
	slow  int32 // follows level over 64 windows
	// before and held are the level and the width before the current level was accepted. held is in
	// buckets. It is 0 if no level was accepted, or if the layer has returned from it.
	before int32
	held   uint16
	n      uint16 // number of values, up to a limit; smaller after a gap or a new level
	same   uint8  // number of values in a row that were outside, on the same side
	lag    uint8  // number of values in a row for which level was far above slow
	side   Side   // the side on which the last value was outside
}

// The constants of a series; docs/verdict.md explains them.
const (
	firstWidth   = 16 * unit // the width before anything is known
	leastWidth   = 2 * unit
	unusual      = 6    // widths that a warning needs; critical needs twice as many
	learnt       = 8    // values that are needed before anything is judged
	gain         = 8    // the level follows values by 1/8, the width by 1/16
	quickGain    = 4    // the same as gain, while the layer changes
	clip         = 3    // a value moves the level by at most so many widths
	creep        = 32   // the level follows values outside by 1/32
	acceptAfter  = 16   // values in a row outside, after which the last one becomes the new level
	acceptFar    = 64   // the same for values far outside
	relearnt     = 5    // n after a level was accepted
	remembered   = 1024 // up to this n, the level before the accepted one is remembered
	slowGain     = 64
	driftLearnt  = 24
	driftSteps   = 64 * unit // distance of level above slow, a factor of four
	driftAccepts = 64
)

// limits are the smallest distances that can be a fault, in units.
type limits struct {
	warn, critical int32
	side           Side
}

// outcome is the judgement of a value by a series.
type outcome struct {
	level    Level
	excess   int32 // the value minus the expected value
	warn     int32 // the distance that is a warning
	accepted bool  // whether the value was accepted as the new level
}

// add compares x with the values before it, and learns from it. changing says that many seeds of the
// layer have just changed their state. Then larger distances are tolerated, and the level follows
// faster.
func (s *series) add(x int32, of limits, changing bool) outcome {
	if s.n == 0 {
		*s = series{level: x, slow: x, width: firstWidth, n: 1}
		return outcome{warn: s.tolerance(of, changing)}
	}
	e := x - s.level
	far := max(2*unusual*s.width, of.critical)
	if changing {
		far += of.warn / 2
	}
	out := outcome{excess: e, warn: s.tolerance(of, changing)}
	side := NoSide
	if abs(e) > out.warn {
		side = Down
		if e > 0 {
			side = Up
		}
	}
	if s.n >= learnt && side&of.side != 0 {
		out.level = Warning
		if abs(e) > far {
			out.level = Critical
		}
	}
	switch side {
	case NoSide:
		s.same = 0
	case s.side:
		s.same++
	default:
		s.same = 1
	}
	s.side = side
	out.accepted = s.learn(x, e, abs(e) > far, changing)
	if out.accepted && side&of.side == 0 {
		s.held = 0 // the accepted level is no fault, so a return from it may be a fault
	}
	s.follow()
	return out
}

// tolerance returns the largest distance from the level that is no fault.
func (s *series) tolerance(of limits, changing bool) int32 {
	w := max(unusual*s.width, of.warn)
	if changing {
		w += of.warn / 2
	}
	return w
}

// learn moves the level and the width towards the value. It reports whether a value outside was
// accepted as the new level.
func (s *series) learn(x, e int32, far, changing bool) bool {
	by := int32(gain)
	if changing {
		by = quickGain
	}
	by = min(int32(s.n)+1, by)
	if s.n < 1<<15 {
		s.n++
	}
	if s.n > learnt {
		e = max(-clip*s.width, min(clip*s.width, e))
	}
	if s.side == NoSide || s.n <= learnt {
		s.level += divide(e, by)
		s.width = max(leastWidth, s.width+divide(abs(e)-s.width, 2*by))
		return false
	}
	accept := uint8(acceptAfter)
	if far {
		accept = acceptFar
	}
	if s.same >= accept {
		s.remember()
		s.level, s.slow, s.n, s.same = x, x, relearnt, 0
		return true
	}
	s.level += divide(e, creep) // the width stays, because values outside must not widen it
	return false
}

// remember keeps the level and the width from before the values outside. It subtracts how far the
// level has followed those values.
func (s *series) remember() {
	crept := int32(s.same-1) * divide(clip*s.width, creep)
	if s.side == Down {
		crept = -crept
	}
	s.before, s.held = s.level-crept, uint16(min((s.width+unit-1)/unit, 1<<15))
}

// returned restores the level before the accepted one, if x is the second value in a row that is
// outside and x is in the range of that earlier level. One value alone may be a spike. But while the
// accepted level is being learnt, one value is enough, because it would move the level far. Call
// returned before add.
func (s *series) returned(x int32, of limits, changing bool) bool {
	e, side := x-s.level, Down
	if e > 0 {
		side = Up
	}
	first := s.same == 0 || s.side != side
	if s.held == 0 || first && s.n >= learnt || abs(e) <= s.tolerance(of, changing) {
		return false
	}
	was := series{level: s.before, slow: s.before, width: int32(s.held) * unit, n: learnt}
	if s.n > remembered || abs(x-was.level) > was.tolerance(of, changing) {
		return false
	}
	*s = was
	return true
}

// follow moves the slow level. The slow level does not move while the level is far above it.
func (s *series) follow() {
	if s.n > driftLearnt && s.level-s.slow > driftSteps {
		if s.lag++; s.lag >= driftAccepts {
			s.slow, s.lag = s.level, 0
		}
		return
	}
	s.slow += divide(s.level-s.slow, min(int32(s.n), slowGain))
	s.lag = 0
}

// changed forgets how long values were outside. After a gap, it also forgets almost everything except
// the level and the width.
func (s *series) changed(gap bool) {
	s.same = 0
	if gap {
		s.n, s.slow, s.lag, s.held = min(s.n, 3), s.level, 0, 0
	}
}

// divide returns a/n, rounded to the nearest integer, with halves away from zero.
func divide(a, n int32) int32 {
	if a >= 0 {
		return (a + n/2) / n
	}
	return -((-a + n/2) / n)
}

func abs(a int32) int32 {
	if a < 0 {
		return -a
	}
	return a
}
