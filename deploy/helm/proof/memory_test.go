package proof

import (
	"testing"
)

// GOMEMLIMIT is nine tenths of the limit of memory, in whatever unit that is.
func TestMemoryLimit(t *testing.T) {
	for _, c := range []struct {
		limits any
		want   string // "" for none
	}{
		{map[string]any{"memory": "20480Ki"}, "18874368"},
		{map[string]any{"memory": "512Mi"}, "483183820"},
		{map[string]any{"memory": "2Gi"}, "1932735283"},
		{map[string]any{"memory": "1.5Gi"}, "1449551462"},
		{map[string]any{"memory": "1Ti"}, "989560464998"},
		{map[string]any{"memory": "1Pi"}, "1013309916158361"},
		{map[string]any{"memory": "20000k"}, "18000000"},
		{map[string]any{"memory": "500M"}, "450000000"},
		{map[string]any{"memory": "4G"}, "3600000000"},
		{map[string]any{"memory": "1T"}, "900000000000"},
		{map[string]any{"memory": "1P"}, "900000000000000"},
		{map[string]any{"memory": "1e9"}, "900000000"},
		{map[string]any{"memory": "1E9"}, "900000000"},
		{map[string]any{"memory": "1073741824"}, "966367641"},
		{map[string]any{"memory": "1073741824000m"}, "966367641"},
		{map[string]any{"memory": float64(1073741824)}, "966367641"}, // a number in YAML
		{map[string]any{"memory": int64(1073741824)}, "966367641"},   // a number of --set
		{map[string]any{"memory": nil, "cpu": 1}, ""},
		{nil, ""},
	} {
		values := readValues(t, "minimal")
		values["aggregate"] = map[string]any{"resources": map[string]any{"limits": c.limits}}
		objects, err := render(loadChart(t), values)
		if err != nil {
			t.Errorf("%v: %v", c.limits, err)
			continue
		}
		for _, w := range workloads(t, objects) {
			if w.Name != "r-oona-aggregate" {
				continue
			}
			got := ""
			for _, e := range w.Pod.Spec.Containers[0].Env {
				if e.Name == "GOMEMLIMIT" {
					got = e.Value
				}
			}
			if got != c.want {
				t.Errorf("limits %v give GOMEMLIMIT %q; want %q", c.limits, got, c.want)
			}
		}
	}
}
