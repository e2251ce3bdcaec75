package oona

import (
	"slices"
	"testing"
)

func TestCatalogueHashIsOfNameGroupAndDirection(t *testing.T) {
	metrics := []Metric{{Name: "a", Group: Health, Direction: LowerIsBetter}, {Name: "b", Group: Performance}}
	hash := HashCatalogue(metrics)
	const golden = "cc0bbe886cdda6fa"
	if hash.String() != golden {
		t.Errorf("the hash is %s, want %s: those of logs that exist must not change", hash, golden)
	}
	same := slices.Clone(metrics)
	slices.Reverse(same)
	same[0].Help, same[0].Unit = "of b", "seconds"
	if HashCatalogue(same) != hash {
		t.Error("order, help or unit change the hash")
	}
	for name, change := range map[string]func([]Metric){
		"name":      func(m []Metric) { m[0].Name = "c" },
		"group":     func(m []Metric) { m[0].Group = Performance },
		"direction": func(m []Metric) { m[0].Direction = Neutral },
	} {
		other := slices.Clone(metrics)
		change(other)
		if HashCatalogue(other) == hash {
			t.Errorf("another %s has the same hash", name)
		}
	}
	if back, err := ParseCatalogueHash(hash.String()); err != nil || back != hash {
		t.Errorf("%s is read back as %s, %v", hash, back, err)
	}
	for _, bad := range []string{"", "00", "zz00000000000000", "000000000000000000"} {
		if _, err := ParseCatalogueHash(bad); err == nil {
			t.Errorf("%q is taken for a hash", bad)
		}
	}
}
