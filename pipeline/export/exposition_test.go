package export_test

import (
	"bytes"
	"flag"
	"math"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/export"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// exhibit sends a few rollups that between them show every family.
func exhibit(f *fixture) {
	f.windows(9, 1, "digits:7", "enc.0")
	loss := summarize("reconstruction_loss", 0.5, 0.25, 3, 4)
	loss.Worst = []oona.SeedValue{{Seed: 11, Value: 4}, {Seed: 2, Value: 3}}
	norm := summarize("weight_norm", 1, 2)
	norm.NotMeasured, norm.Infinite = 2, 1
	improvement := summarize("improvement", -0.5, 0, 0.125)
	improvement.Worst = []oona.SeedValue{{Seed: 11, Value: -0.5}}
	for _, layer := range []oona.LayerID{"enc.0", "enc.1", "dec.0"} {
		f.send(rollup(oona.Health, "digits:7", layer, loss, norm))
		f.send(rollup(oona.Performance, "digits:7", layer, improvement, summarize("unheard_of", 1)))
	}
	f.send(rollup(oona.Health, "digits:6", "enc.0"))
	f.stage.End(&oona.RunEnd{Run: "digits:6", At: oona.MicrosOf(time.Now())}, time.Now(), time.Now())
	f.append(topics.LayerHealth, 0, f.sent[0])
	f.append(topics.LayerHealth, 0, []byte("no rollup"))
}

func capTwoLayers(c *export.Config) {
	c.MaxLayers = 2
	c.Buckets = []float64{0, 0.25, 1, 4}
}

// scrape asks the way a Prometheus does that accepts only that form.
func scrape(t *testing.T, f *fixture, accept string) (body []byte, format expfmt.Format) {
	t.Helper()
	request := httptest.NewRequest("GET", "/metrics", nil)
	request.Header.Set("Accept", accept)
	response := httptest.NewRecorder()
	promhttp.HandlerFor(f.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(response, request)
	if response.Code != 200 {
		t.Fatalf("status %d: %s", response.Code, response.Body)
	}
	return response.Body.Bytes(), expfmt.ResponseFormat(response.Header())
}

const (
	acceptText     = "text/plain;version=0.0.4"
	acceptProtobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
	acceptOpen     = "application/openmetrics-text;version=1.0.0"
)

func TestTextExposition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, capTwoLayers)
		exhibit(f)
		got, _ := scrape(t, f, acceptText)
		golden := filepath.Join("testdata", "exposition.txt")
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
		for i := range max(len(gotLines), len(wantLines)) {
			g, w := "(the end)", "(the end)"
			if i < len(gotLines) {
				g = gotLines[i]
			}
			if i < len(wantLines) {
				w = wantLines[i]
			}
			if g != w {
				t.Fatalf("line %d is\n\t%s\nwant\n\t%s\n(go test -update rewrites %s)", i+1, g, w, golden)
			}
		}
	})
}

func TestLint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, capTwoLayers)
		exhibit(f)
		problems, err := testutil.GatherAndLint(f.registry)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	})
}

func requirePromtool(t *testing.T) string {
	t.Helper()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		const missing = "promtool is not on the PATH (Debian: apt-get install prometheus)"
		if os.Getenv("OONA_REQUIRE_PROMTOOL") == "1" {
			t.Fatal(missing)
		}
		t.Skip("SKIPPED: " + missing)
	}
	return promtool
}

func TestPromtool(t *testing.T) {
	promtool := requirePromtool(t)
	var body []byte
	synctest.Test(t, func(t *testing.T) {
		f := start(t, capTwoLayers)
		exhibit(f)
		body, _ = scrape(t, f, acceptText)
	})
	if !bytes.Contains(body, []byte("kasmina_layer_health_bucket{")) {
		t.Fatalf("nothing to check in\n%s", body)
	}
	check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	check.Stdin = bytes.NewReader(body)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// Classic buckets must be the same in every form, and agree with the native
// ones where a form has both.
func TestClassicBucketsStandBesideNativeOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, capTwoLayers)
		first := time.Now().Add(windowLength)
		exhibit(f)
		forms := map[string]map[string]*dto.MetricFamily{
			"protobuf": parse(t, f, acceptProtobuf),
			"text":     parse(t, f, acceptText),
		}
		histograms := 0
		for name, family := range forms["protobuf"] {
			if family.GetType() != dto.MetricType_HISTOGRAM {
				continue
			}
			text := forms["text"][name]
			if len(text.GetMetric()) != len(family.Metric) {
				t.Fatalf("%s has %d series as protobuf and %d as text", name, len(family.Metric), len(text.GetMetric()))
			}
			for i, m := range family.Metric {
				histograms++
				if m.Histogram.Schema == nil || len(m.Histogram.PositiveSpan) == 0 || len(m.Histogram.Bucket) != 4 {
					t.Errorf("%s%v has not both forms: %v", name, m.Label, m.Histogram)
				}
				if err := consistent(m.Histogram); err != nil {
					t.Errorf("%s%v: %v", name, m.Label, err)
				}
				sameClassic(t, name, m.Histogram, text.Metric[i].Histogram)
				want := time.Now()
				if m.Label[0].GetValue() == "enc.0" {
					want = first
				}
				if created := m.Histogram.CreatedTimestamp.AsTime(); !created.Equal(want) {
					t.Errorf("%s%v created %v, want %v", name, m.Label, created, want)
				}
			}
		}
		if histograms != 3*4+2 { // two layers and other, two metrics of each group; two more of enc.0
			t.Errorf("%d histograms, want 14", histograms)
		}
		if body, _ := scrape(t, f, acceptOpen); !bytes.HasSuffix(body, []byte("# EOF\n")) {
			t.Errorf("the OpenMetrics form has no end")
		}
	})
}

func parse(t *testing.T, f *fixture, accept string) map[string]*dto.MetricFamily {
	t.Helper()
	body, format := scrape(t, f, accept)
	families := make(map[string]*dto.MetricFamily)
	if format.FormatType() == expfmt.TypeTextPlain {
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		return families
	}
	if format.FormatType() != expfmt.TypeProtoDelim {
		t.Fatalf("asked for %s, got %s", accept, format)
	}
	decoder := expfmt.NewDecoder(bytes.NewReader(body), format)
	for {
		family := new(dto.MetricFamily)
		if decoder.Decode(family) != nil {
			return families
		}
		families[family.GetName()] = family
	}
}

func sameClassic(t *testing.T, name string, proto, text *dto.Histogram) {
	t.Helper()
	if proto.GetSampleCount() != text.GetSampleCount() || proto.GetSampleSum() != text.GetSampleSum() {
		t.Errorf("%s: count %d and sum %g as protobuf, %d and %g as text", name, proto.GetSampleCount(), proto.GetSampleSum(), text.GetSampleCount(), text.GetSampleSum())
	}
	if len(text.Bucket) != len(proto.Bucket)+1 {
		t.Fatalf("%s: %d buckets as text, want %d and the infinite one", name, len(text.Bucket), len(proto.Bucket))
	}
	for i, b := range proto.Bucket {
		if x := text.Bucket[i]; x.GetUpperBound() != b.GetUpperBound() || x.GetCumulativeCount() != b.GetCumulativeCount() {
			t.Errorf("%s: le %g counts %d as protobuf, le %g counts %d as text", name, b.GetUpperBound(), b.GetCumulativeCount(), x.GetUpperBound(), x.GetCumulativeCount())
		}
	}
	last := text.Bucket[len(text.Bucket)-1]
	if !math.IsInf(last.GetUpperBound(), 1) || last.GetCumulativeCount() != text.GetSampleCount() {
		t.Errorf("%s: last bucket le %g counts %d of %d", name, last.GetUpperBound(), last.GetCumulativeCount(), text.GetSampleCount())
	}
}
