package verdict

import "fmt"

// Level says how bad something is.
type Level uint8

// The levels, in ascending order.
const (
	OK Level = iota
	Warning
	Critical
)

func (l Level) String() string {
	switch l {
	case OK:
		return "ok"
	case Warning:
		return "warning"
	case Critical:
		return "critical"
	}
	return fmt.Sprintf("Level(%d)", uint8(l))
}

// Kind says what is wrong.
type Kind uint8

// The kinds of reasons. Reasons with the same level are sorted in the order of this list.
const (
	Infinite    Kind = iota // samples are infinite
	NotMeasured             // samples are NaN where a value was due
	SilentSeeds             // seeds that reported before do not report
	Dead                    // many samples are close to 1, which means a dead unit
	High                    // the median is above the expected range
	Low                     // the median is below the expected range
	Regressed               // the level is far above its best value
	Drift                   // the level has risen slowly and far
	Outlier                 // the greatest sample is much further above the median than usual
	Stuck                   // the samples repeat exactly
	Stalled                 // the layer has no new windows, or no new steps, while other layers of the run have

	kinds = int(Stalled) + 1
)

var kindNames = [kinds]string{
	"infinite", "not_measured", "silent_seeds", "dead", "high", "low",
	"regressed", "drift", "outlier", "stuck", "stalled",
}

// Kinds returns all kinds, in the order of their rank.
func Kinds() []Kind {
	all := make([]Kind, kinds)
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

func (k Kind) String() string {
	if int(k) >= kinds {
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
	return kindNames[k]
}
