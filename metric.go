package oona

// Group is the rollup that a metric belongs to.
type Group uint8

// The groups of metrics. An unknown metric is of Performance.
const (
	Health Group = iota
	Performance
)

func (g Group) String() string {
	if g == Health {
		return "health"
	}
	return "performance"
}

// Direction says which values of a metric are worse.
type Direction uint8

// The directions of metrics.
const (
	Neutral        Direction = iota // no seed is worse than another
	HigherIsBetter                  // the worst seeds have the least values
	LowerIsBetter                   // the worst seeds have the greatest values
)

// Metric is what the catalogue knows of a metric's name.
type Metric struct {
	Name      string
	Group     Group
	Unit      string // base unit, e.g. "seconds", "ratio"; empty: none
	Direction Direction
	Help      string
}
