package oona

import (
	"errors"
	"math"
	"testing"
)

func TestWindowConfigurationValidate(t *testing.T) {
	for _, tt := range []struct {
		field  string // empty: none is wrong
		change func(*WindowConfiguration)
	}{
		{"", func(*WindowConfiguration) {}},
		{"", func(c *WindowConfiguration) { c.From = 0 }},
		{"", func(c *WindowConfiguration) { c.MaxDelay = longestSpan }},
		{"generation", func(c *WindowConfiguration) { c.Generation = 0 }},
		{"from", func(c *WindowConfiguration) { c.From /= 1000 }},
		{"from", func(c *WindowConfiguration) { c.From = -1 }},
		{"from", func(c *WindowConfiguration) { c.From = latestObservation }},
		{"length", func(c *WindowConfiguration) { c.Length = -1 }},
		{"max_delay", func(c *WindowConfiguration) { c.MaxDelay = longestSpan + 1 }},
		{"idle_horizon", func(c *WindowConfiguration) { c.IdleHorizon = math.MinInt64 }},
		{"max_timelines", func(c *WindowConfiguration) { c.MaxTimelines = -1 }},
		{"worst_seeds", func(c *WindowConfiguration) { c.WorstSeeds = -1 }},
		{"reducer", func(c *WindowConfiguration) { c.Reducer = 0 }},
	} {
		c := WindowConfiguration{Generation: 1, From: earliestObservation, Length: 1, Reducer: 1}
		tt.change(&c)
		err := c.Validate()
		wrong, found := errors.AsType[*FieldError](err)
		if found != (tt.field != "") || found && wrong.Field != tt.field {
			t.Errorf("%+v: %v, want %q named", c, err, tt.field)
		}
	}
}
