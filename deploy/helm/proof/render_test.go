package proof

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"sigs.k8s.io/yaml"
)

var kubeVersion = chartutil.KubeVersion{Version: "v1.33.0", Major: "1", Minor: "33"}

// loadChart returns the chart under a version that does not change, so that a release of
// Oona changes no golden file.
func loadChart(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	c.Metadata.Version, c.Metadata.AppVersion = "0.0.0", "0.0.0"
	return c
}

// object is one that the chart has rendered.
type object struct {
	Kind     string
	Name     string
	Hook     string // the events of Helm at which it is made, "" if it is of the release
	Manifest []byte
}

func (o object) String() string { return o.Kind + "/" + o.Name }

// decode decodes the object strictly: an unknown or repeated field is an error.
func decode[T any](t *testing.T, o object) T {
	t.Helper()
	var into T
	if err := yaml.UnmarshalStrict(o.Manifest, &into); err != nil {
		t.Fatalf("%s: %v\n%s", o, err, o.Manifest)
	}
	return into
}

// renderTexts renders the chart's templates in namespace "ns".
func renderTexts(c *chart.Chart, release string, values map[string]any) (map[string]string, error) {
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = kubeVersion
	options := chartutil.ReleaseOptions{Name: release, Namespace: "ns", Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, values, options, capabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

// render returns the objects of the release "r".
func render(c *chart.Chart, values map[string]any) ([]object, error) {
	files, err := renderTexts(c, "r", values)
	if err != nil {
		return nil, err
	}
	var objects []object
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if path.Ext(name) != ".yaml" {
			continue
		}
		for document := range strings.SplitSeq("\n"+files[name], "\n---") {
			o, err := parse(document)
			if err != nil {
				return nil, fmt.Errorf("%s: %w\n%s", name, err, document)
			}
			if o.Kind != "" {
				objects = append(objects, o)
			}
		}
	}
	slices.SortStableFunc(objects, func(a, b object) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return objects, nil
}

func parse(document string) (object, error) {
	var header struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Name        string            `json:"name"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if err := yaml.Unmarshal([]byte(document), &header); err != nil {
		return object{}, err
	}
	manifest := []byte(strings.TrimSpace(document) + "\n")
	return object{Kind: header.Kind, Name: header.Metadata.Name, Hook: header.Metadata.Annotations["helm.sh/hook"], Manifest: manifest}, nil
}

// valueFiles returns the names of the value files in testdata, without their extension.
func valueFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/values/*.yaml")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d value files, error %v; want at least 12", len(files), err)
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".yaml"))
	}
	return names
}

func readValues(t *testing.T, name string) map[string]any {
	t.Helper()
	values, err := chartutil.ReadValuesFile(filepath.Join("testdata/values", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func renderFile(t *testing.T, name string) []object {
	t.Helper()
	objects, err := render(loadChart(t), readValues(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// Each value file renders what its golden file has. The alerts are not in it, as they
// come from deploy/prometheus: TestAlerts looks at them.
func TestGolden(t *testing.T) {
	for _, name := range valueFiles(t) {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			for _, o := range renderFile(t, name) {
				if o.Kind != "PrometheusRule" {
					fmt.Fprintf(&got, "---\n%s", o.Manifest)
				}
			}
			golden(t, filepath.Join("testdata/golden", name+".yaml"), got.Bytes())
		})
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("%s differs from what the chart renders; if that is meant, run `go test . -update` (-want +got):\n%s", file, diff)
	}
}

// Helm's own linter finds nothing, not even a warning.
func TestLint(t *testing.T) {
	for _, name := range valueFiles(t) {
		t.Run(name, func(t *testing.T) {
			linter := lint.AllWithKubeVersion(chartDir, readValues(t, name), "ns", &kubeVersion)
			for _, m := range linter.Messages {
				if m.Severity > support.InfoSev {
					t.Error(m)
				}
			}
		})
	}
}

// The chart has the version of the project.
func TestVersion(t *testing.T) {
	out, err := exec.Command(filepath.Join(repository, "deploy/image/version")).Output()
	if err != nil {
		t.Fatal(err)
	}
	want, _, _ := strings.Cut(strings.TrimSpace(string(out)), "-dev.")
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	if c.Metadata.Version != want || c.Metadata.AppVersion != want {
		t.Errorf("Chart.yaml has version %s and appVersion %s; CHANGELOG.md has %s", c.Metadata.Version, c.Metadata.AppVersion, want)
	}
}

// A package of the chart renders what the directory does: the alerts are a symbolic link in
// the directory, and a file in the package.
func TestPackage(t *testing.T) {
	file, err := chartutil.Save(loadChart(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	packed, err := loader.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := render(packed, readValues(t, "production"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(renderFile(t, "production"), got); diff != "" {
		t.Errorf("the package renders something else (-directory +package):\n%s", diff)
	}
}
