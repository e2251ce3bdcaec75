package simulate

import "github.com/morphogenetic/oona"

// catalogue knows the metrics of schedules.
func catalogue(name string) oona.Metric {
	switch name {
	case "loss":
		return oona.Metric{Name: name, Group: oona.Health, Direction: oona.LowerIsBetter}
	case "gain":
		return oona.Metric{Name: name, Group: oona.Performance, Direction: oona.HigherIsBetter}
	case "norm":
		return oona.Metric{Name: name, Group: oona.Health}
	}
	return oona.Metric{Name: name, Group: oona.Performance}
}
