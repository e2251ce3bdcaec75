package tracing

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// startPrometheus starts a Prometheus that scrapes the exporter, and returns its address, or
// "" if there is none on this machine. It scrapes text, and so the classic buckets. With
// native histograms, Prometheus 2.42 takes an exemplar only if no bucket below has a later
// one.
func startPrometheus(t *testing.T, exporter string) string {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("OONA_REQUIRE_PROMETHEUS") != "" {
			t.Fatal(err)
		}
		t.Log("SKIPPED: there is no prometheus, so the exemplar is only read from the exporter")
		return ""
	}
	binaries["prometheus"] = path
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n- {job_name: oona, static_configs: [{targets: [%q]}]}\n", exporter)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	at := freeAddress(t)
	start(t, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+at,
		"--enable-feature=exemplar-storage")
	eventually(t, "Prometheus is ready", func() error { return fetch(t, "http://"+at+"/-/ready", nil) })
	return at
}

var errNotStored = errors.New("Prometheus has no such exemplar")

// hasExemplar returns nil if Prometheus has an exemplar with the labels.
func hasExemplar(t *testing.T, prometheus string, labels map[string]string) error {
	t.Helper()
	query := url.Values{
		"query": {`kasmina_layer_health_bucket{metric="gradient_norm"}`},
		"start": {time.Now().Add(-time.Hour).Format(time.RFC3339)},
		"end":   {time.Now().Add(time.Hour).Format(time.RFC3339)},
	}
	var answer struct {
		Data []struct {
			Exemplars []struct {
				Labels map[string]string `json:"labels"`
			} `json:"exemplars"`
		} `json:"data"`
	}
	if err := fetch(t, "http://"+prometheus+"/api/v1/query_exemplars?"+query.Encode(), &answer); err != nil {
		return err
	}
	for _, series := range answer.Data {
		for _, e := range series.Exemplars {
			if maps.Equal(e.Labels, labels) {
				return nil
			}
		}
	}
	return fmt.Errorf("%w: it has %v", errNotStored, answer.Data)
}
