package demo

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// checkOpenMetrics scrapes a worker as Prometheus does by default, and reads the
// answer with a strict parser if Python has one.
func checkOpenMetrics(t *testing.T, url string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(response.Header.Get("Content-Type"), "application/openmetrics-text") {
		t.Fatalf("the answer is %s", response.Header.Get("Content-Type"))
	}
	for _, fault := range openMetricsFaults(string(body)) {
		t.Error(fault)
	}
	const strict = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse; list(parse(sys.stdin.read()))"
	parser := exec.CommandContext(t.Context(), "python3", "-c", strict)
	parser.Stdin = strings.NewReader(string(body))
	if out, err := parser.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "No module named") && os.Getenv("OONA_REQUIRE_PYTHON") == "" {
			t.Logf("SKIPPED: Python's parser of OpenMetrics (prometheus_client) is not installed; `make python` installs it")
			return
		}
		t.Errorf("Python's strict parser: %v\n%s", err, out)
	}
}

// openMetricsFaults returns what in an exposition violates OpenMetrics. Each family
// must be contiguous, begin with its metadata, and have samples of its own name.
func openMetricsFaults(text string) (faults []string) {
	suffixes := map[string][]string{
		"counter": {"_total", "_created"}, "gauge": {""}, "info": {"_info"}, "unknown": {""},
		"histogram": {"_bucket", "_count", "_sum", "_created"}, "summary": {"", "_count", "_sum", "_created"},
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if lines[len(lines)-1] != "# EOF" {
		faults = append(faults, "it does not end in # EOF")
	}
	seen := make(map[string]bool)
	family, kind, sampled := "", "", false
	for _, line := range lines[:len(lines)-1] {
		fields := strings.Fields(line)
		if fields[0] != "#" {
			sampled = true
			name, _, _ := strings.Cut(fields[0], "{")
			if suffix, ok := strings.CutPrefix(name, family); !ok || !slices.Contains(suffixes[kind], suffix) {
				faults = append(faults, fmt.Sprintf("%s is a sample of the %s %s", name, kind, family))
			}
			continue
		}
		if name := fields[2]; name != family || sampled {
			if seen[name] {
				faults = append(faults, fmt.Sprintf("%s is there twice", name))
			}
			seen[name], family, sampled = true, name, false
		}
		if fields[1] == "TYPE" {
			kind = fields[3]
		}
	}
	return faults
}

func TestOpenMetricsFaults(t *testing.T) {
	for text, want := range map[string]int{
		"# HELP a A.\n# TYPE a counter\na_total{b=\"c\"} 1.0\n# TYPE d gauge\nd 1.0\n# EOF\n":               0,
		"# TYPE a gauge\na 1.0\n# HELP a A.\n# TYPE a counter\na_total 1.0\n# EOF\n":                        1,
		"# TYPE a gauge\na 1.0\n# TYPE b gauge\nb 1.0\n# HELP a A.\n# TYPE a counter\na_total 1.0\n# EOF\n": 1,
		"# TYPE a counter\na 1.0\n# EOF\n": 1,
		"# TYPE a gauge\na 1.0\n":          1,
	} {
		if got := openMetricsFaults(text); len(got) != want {
			t.Errorf("%q has the faults %q, want %d", text, got, want)
		}
	}
}
