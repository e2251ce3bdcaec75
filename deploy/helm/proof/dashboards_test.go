package proof

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
)

// Each dashboard is in a ConfigMap of its own, small enough for kubectl apply, and is the
// file of the chart: Helm takes nothing in it for a template.
func TestDashboards(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(chartDir, "dashboards", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the chart has no dashboards: %v", err)
	}
	maps := dashboards(t, map[string]any{"enabled": true, "annotations": map[string]any{"grafana_folder": "Oona"}})
	if len(maps) != len(files) {
		t.Errorf("%d ConfigMaps of %d dashboards", len(maps), len(files))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		m, ok := maps["r-oona-dashboard-"+name]
		if !ok {
			t.Errorf("there is no ConfigMap of %s", name)
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Data["oona-"+name+".json"]; got != strings.TrimSpace(string(want)) || len(m.Data) != 1 {
			t.Errorf("%s is not what is in the file", m.Name)
		}
		if m.Labels["grafana_dashboard"] != "1" || m.Annotations["grafana_folder"] != "Oona" {
			t.Errorf("%s has the labels %v and the annotations %v", m.Name, m.Labels, m.Annotations)
		}
	}
}

// The address of the page is the value of the variable page, and nothing else changes.
func TestDashboardsLinkToThePage(t *testing.T) {
	const page = "https://oona.example.com"
	plain, linked := dashboards(t, map[string]any{"enabled": true}), dashboards(t, map[string]any{"enabled": true, "page": page})
	for name, m := range linked {
		for key, text := range m.Data {
			found := false
			var a, b map[string]any
			decodeJSON(t, plain[name].Data[key], &a)
			decodeJSON(t, text, &b)
			for _, v := range b["templating"].(map[string]any)["list"].([]any) {
				v := v.(map[string]any)
				if v["name"] == "page" && v["query"] == page {
					found = true
					v["query"], v["current"] = "", nil
				}
			}
			for _, v := range a["templating"].(map[string]any)["list"].([]any) {
				if v := v.(map[string]any); v["name"] == "page" {
					v["query"], v["current"] = "", nil
				}
			}
			x, _ := json.Marshal(a)
			y, _ := json.Marshal(b)
			if !found || string(x) != string(y) {
				t.Errorf("%s: its page is set: %t; the rest is the same: %t", name, found, string(x) == string(y))
			}
		}
	}
}

func decodeJSON(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

// dashboards returns the ConfigMaps of the chart with values of dashboards, by name.
func dashboards(t *testing.T, values map[string]any) map[string]core.ConfigMap {
	t.Helper()
	all := readValues(t, "minimal")
	all["dashboards"] = values
	objects, err := render(loadChart(t), all)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]core.ConfigMap)
	for _, o := range objects {
		if o.Kind == "ConfigMap" && strings.Contains(o.Name, "-dashboard-") {
			if len(o.Manifest) > 200_000 {
				t.Errorf("%s has %d bytes", o.Name, len(o.Manifest))
			}
			found[o.Name] = decode[core.ConfigMap](t, o)
		}
	}
	return found
}
