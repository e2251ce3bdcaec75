package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/morphogenetic/oona"

// pkg has the fields of `go list -json` that the rules need.
type pkg struct {
	ImportPath string
	Name       string
	Standard   bool
	Imports    []string // of the package itself, not of its tests
	Deps       []string // all that it links
}

// layer lists the packages of the module that a package may import, except in tests. A
// pattern that ends in "..." stands for a folder and all folders in it.
type layer struct {
	pkg      string
	may      []string
	standard bool // besides those, the standard library and processorFeatures only
}

// processorFeatures reports which instructions the processor has.
const processorFeatures = "golang.org/x/sys/cpu"

// layers has a row for every package. The first row that matches applies.
var layers = []layer{
	{pkg: "", standard: true},
	{pkg: "logtime", may: []string{""}, standard: true},
	{pkg: "windows", may: []string{"", "logtime", "windows/reduce"}, standard: true},
	{pkg: "windows/reduce", may: []string{""}, standard: true},
	{pkg: "windows/model", may: []string{"", "windows", "windows/model/exact"}, standard: true}, // and no function of windows: see TestModelSharesNoCode
	{pkg: "windows/model/exact", may: []string{""}, standard: true},
	{pkg: "rollups", may: []string{""}, standard: true},
	{pkg: "verdict", may: []string{""}, standard: true},
	{pkg: "verdict/trial", may: []string{"", "windows"}, standard: true}, // and not verdict, which it measures
	{pkg: "internal/lint", standard: true},
	{pkg: "deploy/systemd", standard: true},
	{pkg: "schemas/avro", may: []string{""}},
	{pkg: "schemas/avro/conformance", may: []string{""}, standard: true},
	{pkg: "schemas/registry", may: []string{"", "schemas/avro", "internal/secret", "internal/tlsfiles"}},
	{pkg: "schemas/registry/registrytest", may: []string{"schemas/avro", "schemas/registry"}},
	{pkg: "claimcheck", may: []string{"", "internal/secret", "internal/size"}},
	{pkg: "intake", may: []string{"", "bus", "claimcheck", "internal/size", "schemas/avro"}},
	{pkg: "claimcheck/claimchecktest", may: []string{"", "claimcheck"}},
	{pkg: "claimcheck/embedded"},
	{pkg: "internal/catalogue", may: []string{"", "verdict"}},
	{pkg: "internal/address", standard: true},
	{pkg: "internal/address/addresstest", standard: true},
	{pkg: "internal/size"},
	{pkg: "bus", may: []string{""}},
	{pkg: "bus/memory", may: []string{"", "bus"}},
	{pkg: "bus/bustest", may: []string{"", "bus"}},
	{pkg: "internal/secret", may: []string{""}},
	{pkg: "internal/tlsfiles", may: []string{"", "internal/secret"}},
	{pkg: "internal/tlsfiles/authority", standard: true},
	{pkg: "internal/tlsfiles/tlstest", may: []string{"internal/tlsfiles/authority"}, standard: true},
	{pkg: "internal/access", may: []string{"internal/secret"}},
	{pkg: "bus/kafka", may: []string{"", "bus", "internal/address", "internal/secret", "internal/tlsfiles"}},
	{pkg: "bus/kafka/embedded"},
	{pkg: "internal/settings", may: []string{"", "windows", "bus", "internal/catalogue", "schemas/avro"}},
	{pkg: "internal/commits", may: []string{"", "bus", "pipeline/aggregate", "windows", "internal/settings"}},
	{pkg: "internal/history", may: []string{"", "bus", "pipeline/aggregate", "windows", "internal/settings"}},
	{pkg: "internal/buswatch", may: []string{"", "bus", "internal/remedy"}},
	{pkg: "internal/outage", standard: true},
	{pkg: "internal/remedy", may: []string{"bus"}},
	{pkg: "internal/tracing", may: []string{"", "internal/secret", "internal/tlsfiles"}},
	{pkg: "internal/tracing/tracingtest", may: []string{"internal/tracing"}},
	{pkg: "internal/worker", may: []string{"", "internal/access", "internal/address", "internal/secret", "internal/size", "internal/tlsfiles", "internal/tracing"}},
	{pkg: "internal/worker/workertest"},
	{pkg: "internal/configcheck", may: []string{"internal/address"}},
	{pkg: "internal/audit", may: []string{"", "bus", "schemas/avro"}},
	{pkg: "internal/watch", may: []string{"", "bus", "rollups", "schemas/avro", "verdict"}},
	{pkg: "internal/top", may: []string{"", "bus", "internal/watch", "pipeline/aggregate", "verdict"}},
	{pkg: "internal/loadgen", may: []string{"", "schemas/avro"}},
	{pkg: "internal/localkafka...", may: []string{"internal/localkafka...", "internal/tlsfiles/authority"}},
	{pkg: "internal/simulate...", may: []string{"", "windows", "windows/model", "internal/simulate..."}, standard: true},
	{pkg: "internal/demo...", may: []string{"", "bus...", "pipeline...", "rollups", "windows", "schemas/avro", "claimcheck...", "internal/..."}},
	{pkg: "pipeline", may: []string{"", "bus"}},
	{pkg: "pipeline/partition", may: []string{"", "bus", "pipeline"}},
	{pkg: "pipeline/ingest", may: []string{"", "bus", "intake", "pipeline", "schemas/avro", "schemas/registry", "claimcheck", "internal/access", "internal/outage", "internal/size", "internal/tracing", "forward", "spool", "windows"}},
	{pkg: "pipeline/aggregate", may: []string{"", "bus", "internal/tracing", "pipeline", "pipeline/partition", "windows", "schemas/avro"}},
	{pkg: "pipeline/mirror", may: []string{"", "bus", "pipeline", "schemas/avro"}},
	{pkg: "pipeline/layerseries", may: []string{"", "schemas/avro"}},
	{pkg: "pipeline/export", may: []string{"", "bus", "pipeline", "pipeline/layerseries", "rollups", "schemas/avro", "verdict", "internal/catalogue", "internal/tracing"}},
	{pkg: "spool", may: []string{"internal/outage"}},
	{pkg: "deadletters", may: []string{"", "bus", "claimcheck", "intake", "schemas/avro"}},
	{pkg: "spool/entry", may: []string{"", "bus"}},
	{pkg: "spool/drain", may: []string{"", "bus", "spool", "spool/entry"}},
	{pkg: "forward", may: []string{"", "bus", "internal/outage", "spool", "spool/entry"}},
	{pkg: "replay/manifest", may: nil},
	{pkg: "replay/archive", may: []string{"", "bus", "replay/manifest", "schemas/avro"}},
	{pkg: "replay/records", may: []string{"", "bus", "intake", "replay/manifest", "schemas/avro"}},
	{pkg: "replay/tensors", may: []string{"", "bus", "claimcheck", "intake", "replay", "replay/records", "schemas/avro"}},
	{pkg: "replay/outputtest", may: []string{"", "bus", "replay", "replay/manifest", "replay/records", "schemas/avro"}},
	{pkg: "replay/typed", may: []string{"", "bus", "replay", "replay/manifest", "replay/records", "schemas/avro"}},
	{pkg: "replay/parquet", may: []string{"", "bus", "replay", "replay/manifest", "replay/records"}},
	{pkg: "replay/whatif", may: []string{"", "bus", "logtime", "pipeline/aggregate", "replay", "schemas/avro", "windows", "windows/reduce"}},
	{pkg: "replay", may: []string{"", "bus", "pipeline/aggregate", "pipeline/partition", "windows", "replay/archive", "replay/manifest", "replay/records", "internal/catalogue", "schemas/avro"}},
	{pkg: "pipeline/remotewrite", may: []string{"", "bus", "pipeline", "pipeline/layerseries", "rollups"}},
	{pkg: "bench", may: []string{"", "bus...", "forward", "pipeline...", "replay...", "spool...", "verdict...", "windows", "schemas/avro", "internal/..."}},
	{pkg: "cmd/oona...", may: []string{"", "bus...", "cmd/oona...", "pipeline...", "rollups", "deadletters", "intake", "replay...", "spool...", "windows", "schemas/avro", "schemas/registry...", "claimcheck...", "internal/..."}},
	{pkg: "cmd/ingest...", may: worker("cmd/ingest")},
	{pkg: "cmd/aggregate...", may: worker("cmd/aggregate")},
	{pkg: "cmd/exporter...", may: worker("cmd/exporter")},
}

func worker(cmd string) []string {
	return []string{"", cmd + "...", "pipeline...", "windows", "schemas/avro", "schemas/registry", "claimcheck", "internal/access", "internal/address", "bus", "bus/kafka", "internal/buswatch", "internal/catalogue", "internal/remedy", "internal/secret", "internal/settings", "internal/size", "internal/tlsfiles", "internal/tracing", "internal/worker..."}
}

// workers are the binaries that run in production.
var workers = []string{"cmd/ingest", "cmd/aggregate", "cmd/exporter"}

// notInWorkers are packages that the workers must not link, not even indirectly.
var notInWorkers = []string{
	module + "/bus/memory",
	module + "/bus/bustest",
	module + "/bus/kafka/embedded",
	module + "/claimcheck/embedded",
	module + "/claimcheck/claimchecktest",
	module + "/internal/demo...",
	module + "/internal/loadgen",
	module + "/internal/top",
	module + "/internal/localkafka...",
	module + "/internal/tracing/tracingtest",
	module + "/verdict/trial",
	module + "/windows/model...",
	module + "/deadletters",
	module + "/spool/drain",
	module + "/replay...",
	"github.com/twmb/franz-go/pkg/kfake",
	"github.com/rclone/gofakes3...",
	"github.com/linkedin/goavro/v2",
	"github.com/parquet-go/...",
	"charm.land/...",
	"pgregory.net/rapid",
	"testing",
}

// onlyIn lists packages of other modules that only some packages may import.
var onlyIn = []struct {
	pkg    string
	within []string
	why    string
}{
	{"github.com/hamba/avro...", nil, "it is archived, with open advisories"},
	{"github.com/twmb/avro...", []string{"schemas/avro", "replay/typed"}, "codec types stay there"},
	{"github.com/parquet-go/...", []string{"replay/parquet"}, "the form of files for analysis is decided there"},
	{"github.com/linkedin/goavro...", []string{"schemas/avro", "replay/archive", "bench"}, "codec types stay there"},
	{"github.com/twmb/franz-go...", []string{"bus/kafka...", "internal/localkafka...", "schemas/registry...", "bench"}, "the bus is behind Watermill, the registry behind schemas/registry"},
	{"github.com/aws/...", []string{"claimcheck", "claimcheck/claimchecktest"}, "object storage is behind claimcheck"},
	{"charm.land/...", []string{"internal/top", "cmd/oona"}, "only the operator's tool has a full screen"},
	{"github.com/rclone/gofakes3...", []string{"claimcheck/embedded"}, "object storage is behind claimcheck"},
	{"go.opentelemetry.io/...", []string{"internal/tracing..."}, "traces are behind internal/tracing"},
	{"github.com/IBM/sarama...", []string{"bus/kafka...", "bench"}, "the bus is behind Watermill"},
	{"github.com/ThreeDotsLabs/watermill-kafka...", []string{"bus/kafka...", "bench"}, "the bus is behind Watermill"},
}

// vagueNames are names that do not tell what a package is about.
var vagueNames = []string{"util", "utils", "common", "helper", "helpers", "manager", "managers", "misc", "shared", "base"}

func fits(pattern, path string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "..."); ok {
		prefix = strings.TrimSuffix(prefix, "/")
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	}
	return path == pattern
}

func fitsAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return fits(p, path) })
}

// ours returns a package's path within the module.
func ours(importPath string) (string, bool) {
	if importPath == module {
		return "", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// standard reports whether a package is of the standard library. All other paths begin
// with a domain.
func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

func importViolations(p pkg) (violations []string) {
	self, _ := ours(p.ImportPath)
	row := slices.IndexFunc(layers, func(l layer) bool { return fits(l.pkg, self) })
	if row < 0 {
		return []string{fmt.Sprintf("%s: layers has no row for it; add one to internal/lint", p.ImportPath)}
	}
	for _, imported := range p.Imports {
		other, mine := ours(imported)
		switch {
		case mine && !fitsAny(layers[row].may, other):
			violations = append(violations, fmt.Sprintf("%s imports %s; of this module it may import %q", p.ImportPath, imported, layers[row].may))
		case !mine && layers[row].standard && !standard(imported) && imported != processorFeatures:
			violations = append(violations, fmt.Sprintf("%s imports %s; of other modules it may import only the standard library", p.ImportPath, imported))
		}
		for _, o := range onlyIn {
			if fits(o.pkg, imported) && !fitsAny(o.within, self) {
				violations = append(violations, fmt.Sprintf("%s imports %s: %s", p.ImportPath, imported, o.why))
			}
		}
	}
	return violations
}

func linkViolations(p pkg) (violations []string) {
	self, _ := ours(p.ImportPath)
	if !slices.Contains(workers, self) {
		return nil
	}
	for _, dep := range p.Deps {
		if fitsAny(notInWorkers, dep) {
			violations = append(violations, fmt.Sprintf("%s links %s, which is not for production", p.ImportPath, dep))
		}
	}
	return violations
}

func nameViolations(p pkg) (violations []string) {
	for _, name := range slices.Compact([]string{path.Base(p.ImportPath), p.Name}) {
		if slices.Contains(vagueNames, name) {
			violations = append(violations, fmt.Sprintf("%s: %s is not a noun of the domain", p.ImportPath, name))
		}
	}
	return violations
}

func packageViolations(p pkg) []string {
	return slices.Concat(importViolations(p), linkViolations(p), nameViolations(p))
}

func TestPackages(t *testing.T) {
	packages := list(t)
	for _, p := range packages {
		for _, v := range packageViolations(p) {
			t.Error(v)
		}
	}
	for _, worker := range workers {
		if !slices.ContainsFunc(packages, func(p pkg) bool { return p.ImportPath == module+"/"+worker && len(p.Deps) > 0 }) {
			t.Errorf("%s is not a package of the module, so it was not checked", worker)
		}
	}
	for _, pattern := range rowsWithoutPackage(packages) {
		t.Errorf("layers names %s, which fits no package of the module; remove it", pattern)
	}
}

// rowsWithoutPackage returns the patterns of layers that fit none of the packages.
func rowsWithoutPackage(packages []pkg) (dead []string) {
	for _, l := range layers {
		for _, pattern := range append([]string{l.pkg}, l.may...) {
			exists := slices.ContainsFunc(packages, func(p pkg) bool {
				self, _ := ours(p.ImportPath)
				return fits(pattern, self)
			})
			if !exists && !slices.Contains(dead, pattern) {
				dead = append(dead, pattern)
			}
		}
	}
	return dead
}

// list returns the packages of the module.
func list(t *testing.T) (packages []pkg) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Name,Imports,Deps", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages
		case err != nil:
			t.Fatalf("go list: %v", err)
		}
		packages = append(packages, p)
	}
}

// TestPackageRules has, for each rule, a package that breaks it and a similar one that
// does not.
func TestPackageRules(t *testing.T) {
	for _, tt := range []struct {
		name string
		pkg  pkg
		want string // within the one violation; empty: none
	}{
		{"root imports ours", pkg{ImportPath: module, Imports: []string{module + "/windows"}}, "imports " + module + "/windows"},
		{"root imports others", pkg{ImportPath: module, Imports: []string{"github.com/google/uuid"}}, "only the standard library"},
		{"root imports the standard library", pkg{ImportPath: module, Imports: []string{"crypto/sha256", "fmt"}}, ""},
		{"windows imports the root", pkg{ImportPath: module + "/windows", Imports: []string{module, "slices"}}, ""},
		{"windows imports the log's time", pkg{ImportPath: module + "/windows", Imports: []string{module, module + "/logtime"}}, ""},
		{"the log's time imports windows", pkg{ImportPath: module + "/logtime", Imports: []string{module + "/windows"}}, "imports " + module + "/windows"},
		{"reducers import the engine", pkg{ImportPath: module + "/windows/reduce", Imports: []string{module + "/windows"}}, "imports " + module + "/windows"},
		{"the model imports the reducers", pkg{ImportPath: module + "/windows/model", Imports: []string{module + "/windows/reduce"}}, "imports " + module + "/windows/reduce"},
		{"the engine imports the model", pkg{ImportPath: module + "/windows", Imports: []string{module + "/windows/model"}}, "imports " + module + "/windows/model"},
		{"the trial imports what it measures", pkg{ImportPath: module + "/verdict/trial", Imports: []string{module + "/verdict"}}, "imports " + module + "/verdict"},
		{"verdict imports the engine", pkg{ImportPath: module + "/verdict", Imports: []string{module + "/windows"}}, "imports " + module + "/windows"},
		{"a worker links the model", pkg{ImportPath: module + "/cmd/aggregate", Deps: []string{module + "/windows/model"}}, "links " + module + "/windows/model"},
		{"exact numbers import the reducers", pkg{ImportPath: module + "/windows/model/exact", Imports: []string{module + "/windows/reduce"}}, "imports " + module + "/windows/reduce"},
		{"windows imports schemas", pkg{ImportPath: module + "/windows", Imports: []string{module + "/schemas/avro"}}, "imports " + module + "/schemas/avro"},
		{"windows imports others", pkg{ImportPath: module + "/windows", Imports: []string{"github.com/prometheus/client_golang/prometheus"}}, "only the standard library"},
		{"schemas import windows", pkg{ImportPath: module + "/schemas/avro", Imports: []string{module + "/windows"}}, "imports " + module + "/windows"},
		{"bus imports windows", pkg{ImportPath: module + "/bus/kafka", Imports: []string{module + "/windows"}}, "imports " + module + "/windows"},
		{"bus imports embedded", pkg{ImportPath: module + "/bus/kafka", Imports: []string{module + "/bus/kafka/embedded"}}, "imports " + module + "/bus/kafka/embedded"},
		{"pipeline imports bus", pkg{ImportPath: module + "/pipeline/ingest", Imports: []string{module + "/bus/kafka"}}, "imports " + module + "/bus/kafka"},
		{"settings import Kafka", pkg{ImportPath: module + "/internal/settings", Imports: []string{module + "/bus/kafka"}}, "imports " + module + "/bus/kafka"},
		{"watch imports Kafka", pkg{ImportPath: module + "/internal/watch", Imports: []string{module + "/bus/kafka"}}, "imports " + module + "/bus/kafka"},
		{"a command imports Kafka", pkg{ImportPath: module + "/cmd/exporter", Imports: []string{module + "/bus", module + "/bus/kafka"}}, ""},
		{"the demo imports Kafka", pkg{ImportPath: module + "/internal/demo", Imports: []string{module + "/bus/kafka", module + "/bus/kafka/embedded"}}, ""},
		{"pipeline imports replay", pkg{ImportPath: module + "/pipeline", Imports: []string{module + "/replay"}}, "imports " + module + "/replay"},
		{"a stage imports another stage", pkg{ImportPath: module + "/pipeline/export", Imports: []string{module + "/pipeline/aggregate"}}, "imports " + module + "/pipeline/aggregate"},
		{"pipeline imports pipeline, windows", pkg{ImportPath: module + "/pipeline/aggregate", Imports: []string{module, module + "/pipeline", module + "/windows", "github.com/ThreeDotsLabs/watermill/message"}}, ""},
		{"cmd imports another cmd", pkg{ImportPath: module + "/cmd/ingest", Imports: []string{module + "/cmd/aggregate/flags"}}, "imports " + module + "/cmd/aggregate/flags"},
		{"cmd/oona imports another cmd", pkg{ImportPath: module + "/cmd/oona", Imports: []string{module + "/cmd/ingest"}}, "imports " + module + "/cmd/ingest"},
		{"cmd imports what is below it", pkg{ImportPath: module + "/cmd/oona", Imports: []string{module + "/cmd/oona/table", module + "/internal/demo"}}, ""},
		{"pipeline imports cmd", pkg{ImportPath: module + "/pipeline/ingest", Imports: []string{module + "/cmd/ingest/flags"}}, "imports " + module + "/cmd/ingest/flags"},
		{"worker imports the demo", pkg{ImportPath: module + "/cmd/ingest", Imports: []string{module + "/internal/demo"}}, "imports " + module + "/internal/demo"},
		{"intake imports the stage", pkg{ImportPath: module + "/intake", Imports: []string{module + "/pipeline/ingest"}}, "imports " + module + "/pipeline/ingest"},
		{"a package without a row", pkg{ImportPath: module + "/garden"}, "has no row"},

		{"worker links kfake", pkg{ImportPath: module + "/cmd/aggregate", Deps: []string{"github.com/twmb/franz-go/pkg/kfake"}}, "links github.com/twmb/franz-go/pkg/kfake"},
		{"worker links embedded", pkg{ImportPath: module + "/cmd/exporter", Deps: []string{module + "/bus/kafka/embedded"}}, "links " + module + "/bus/kafka/embedded"},
		{"worker links the bus in memory", pkg{ImportPath: module + "/cmd/exporter", Deps: []string{module + "/bus/memory"}}, "links " + module + "/bus/memory"},
		{"worker links the suite of buses", pkg{ImportPath: module + "/cmd/exporter", Deps: []string{module + "/bus/bustest"}}, "links " + module + "/bus/bustest"},
		{"bus in memory imports Kafka", pkg{ImportPath: module + "/bus/memory", Imports: []string{module + "/bus/kafka"}}, "imports " + module + "/bus/kafka"},
		{"worker links the embedded S3 server", pkg{ImportPath: module + "/cmd/ingest", Deps: []string{module + "/claimcheck", module + "/claimcheck/embedded"}}, "links " + module + "/claimcheck/embedded"},
		{"worker links the demo", pkg{ImportPath: module + "/cmd/ingest", Deps: []string{"fmt", module + "/internal/demo"}}, "links " + module + "/internal/demo"},
		{"worker links testing", pkg{ImportPath: module + "/cmd/ingest", Deps: []string{"testing"}}, "links testing"},
		{"the CLI links kfake", pkg{ImportPath: module + "/cmd/oona", Deps: []string{"github.com/twmb/franz-go/pkg/kfake"}}, ""},

		{"hamba/avro", pkg{ImportPath: module + "/schemas/avro", Imports: []string{"github.com/hamba/avro/v2"}}, "archived"},
		{"codec outside schemas", pkg{ImportPath: module + "/pipeline/export", Imports: []string{"github.com/twmb/avro"}}, "codec types stay there"},
		{"goavro outside schemas", pkg{ImportPath: module + "/internal/loadgen", Imports: []string{"github.com/linkedin/goavro/v2"}}, "codec types stay there"},
		{"S3 outside claimcheck", pkg{ImportPath: module + "/pipeline/ingest", Imports: []string{"github.com/aws/aws-sdk-go-v2/service/s3"}}, "behind claimcheck"},
		{"sarama outside the bus", pkg{ImportPath: module + "/pipeline/ingest", Imports: []string{"github.com/IBM/sarama"}}, "behind Watermill"},
		{"sarama in the bus", pkg{ImportPath: module + "/bus/kafka", Imports: []string{"github.com/IBM/sarama"}}, ""},

		{"vague folder", pkg{ImportPath: module + "/internal/demo/util", Name: "text"}, "util is not a noun"},
		{"vague name", pkg{ImportPath: module + "/internal/demo/text", Name: "helpers"}, "helpers is not a noun"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := packageViolations(tt.pkg)
			if tt.want == "" {
				if len(got) != 0 {
					t.Errorf("violations %q, want none", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("violations %q, want one with %q", got, tt.want)
			}
		})
	}
}
