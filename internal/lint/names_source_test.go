package lint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/internal/buswatch"
	"github.com/morphogenetic/oona/internal/catalogue"
	process "github.com/morphogenetic/oona/internal/worker" // worker is a function here
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/pipeline/export"
	"github.com/morphogenetic/oona/pipeline/ingest"
	"github.com/morphogenetic/oona/pipeline/remotewrite"
	"github.com/morphogenetic/oona/schemas/registry"
	"github.com/morphogenetic/oona/windows"
)

// Flags are read from the help of the programs.
var (
	helpFlag     = regexp.MustCompile(`^  (?:-\w, |    )?--([a-z0-9-]+)`)
	helpVariable = regexp.MustCompile(`\$(OONA_\w+)`)
	helpCommand  = regexp.MustCompile(`(?m)^  ([\w-]+( [\w-]+)?) [^\n]*\[flags\]$`)
)

func flagsOfPrograms(t *testing.T) (names []string) {
	t.Helper()
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./cmd/...")
	build.Dir = moduleRoot(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	help := func(program string, command ...string) string {
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, program), append(command, "--help")...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for _, program := range []string{"ingest", "aggregate", "exporter"} {
		names = append(names, flagsOf(program, help(program))...)
	}
	for _, command := range helpCommand.FindAllStringSubmatch(help("oona"), -1) {
		words := strings.Fields(command[1])
		names = append(names, flagsOf("oona/"+strings.Join(words, "/"), help("oona", words...))...)
	}
	return names
}

// flagsOf returns the flags of a help text, each with its variable if it has one.
func flagsOf(program, help string) (names []string) {
	for line := range strings.Lines(help) {
		if found := helpFlag.FindStringSubmatch(line); found != nil {
			names = append(names, "flag "+program+" --"+found[1])
		}
		if found := helpVariable.FindStringSubmatch(line); found != nil && len(names) > 0 {
			names[len(names)-1] += " " + found[1]
		}
	}
	return names
}

// listMetrics is the variable with which the test binary runs as a worker that
// writes the metrics of all stages. That is how the registry of worker.Main, which
// ends the process, is seen.
const listMetrics = "OONA_TEST_METRICS"

func TestMain(m *testing.M) {
	if os.Getenv(listMetrics) == "" {
		os.Exit(m.Run())
	}
	process.Main("lint", "Lists metrics.", &struct{ process.Config }{process.Config{AdminAddress: "127.0.0.1:0"}}, writeMetrics)
}

func metricsOfWorkers(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	list := exec.CommandContext(t.Context(), self)
	list.Env = append(os.Environ(), listMetrics+"=1", "TMPDIR="+t.TempDir())
	var messages bytes.Buffer
	list.Stderr = &messages
	out, err := list.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, messages.String())
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// writeMetrics registers the metrics of all stages with a worker's registry, and
// writes all that it has.
func writeMetrics(_ context.Context, w *process.Worker) error {
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		return err
	}
	tensors, err := claimcheck.OpenDirectory(filepath.Join(os.TempDir(), "tensors"), "tensors", 1)
	if err != nil {
		return err
	}
	known, err := catalogue.Default()
	if err != nil {
		return err
	}
	frames := ingest.DefaultConfig()
	frames.Topic, frames.Instance, frames.Tensors = topics.SeedMetrics, "i", tensors
	frames.Spool.Directory = filepath.Join(os.TempDir(), "spool")
	if frames.Spool.Open, err = frames.OpenSpool(w.Logger); err != nil {
		return err
	}
	w.OnClose("spool", frames.Spool.Open.Close)
	folds := aggregate.Config{Worker: "w", Topics: topics, Windows: windows.DefaultConfig(), Limits: oona.DefaultFrameLimits}
	var nowhere bus.Publisher
	stage, err := ingest.New(frames, nowhere, w.Registry, w.Logger)
	if err != nil {
		return err
	}
	_, raw := ingest.NewRaw(stage, topics, w.Registry, w.Logger)
	_, agg := aggregate.New(folds, windows.Always(known.Metric), nowhere, w.Registry, w.Logger)
	_, exp := export.New(export.DefaultConfig(), nil, known, w.Registry, slog.New(slog.DiscardHandler))
	_, transitions := export.NewTransitions(export.DefaultConfig(), w.Registry, w.Logger)
	sent := remotewrite.Config{Topics: topics, URL: "http://receiver/api/v1/write", MaxRuns: 1, MaxLayers: 1, MaxTotalLayers: 1, MaxMetrics: 1, SilentAfter: 1}
	_, remote := remotewrite.New(sent, w.Registry, w.Logger)
	_, watch := buswatch.New(nil, nil, nil, w.Registry, w.Logger)
	_, schemas := registry.Open(registry.Config{URLs: []string{"http://registry"}}, w.Registry, w.Logger)
	if err := errors.Join(raw, agg, exp, transitions, remote, watch, schemas); err != nil {
		return err
	}
	names, err := metricsOf(w.Registry)
	fmt.Println(strings.Join(names, "\n"))
	return err
}

var metricDesc = regexp.MustCompile(`^Desc\{fqName: "((?:oona|kasmina)_\w+)", .*, constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// fixedLabels have values that are names too: alerts and dashboards ask for them.
var fixedLabels = []string{"by", "of", "outcome", "reason", "result", "verdict"}

// metricsOf returns the metrics of a registry with their labels, and the values of
// labels that have them from the start.
func metricsOf(registry *prometheus.Registry) (names []string, err error) {
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		registry.Describe(descs)
	}()
	for desc := range descs {
		found := metricDesc.FindStringSubmatch(desc.String())
		if found == nil {
			continue // of the Go runtime or the process
		}
		labels := strings.FieldsFunc(found[3], func(r rune) bool { return r == ',' })
		for constant := range strings.SplitSeq(found[2], ",") {
			if name, _, ok := strings.Cut(constant, "="); ok {
				labels = append(labels, name)
			}
		}
		slices.Sort(labels)
		names = append(names, "metric /metrics "+found[1]+"{"+strings.Join(labels, ",")+"}")
	}
	families, err := registry.Gather()
	for _, family := range families {
		for _, series := range family.GetMetric() {
			for _, label := range series.GetLabel() {
				if slices.Contains(fixedLabels, label.GetName()) {
					names = append(names, fmt.Sprintf("metric /metrics %s{%s=%q}", family.GetName(), label.GetName(), label.GetValue()))
				}
			}
		}
	}
	return names, err
}

func topicNames(t *testing.T) (names []string) {
	t.Helper()
	topics, err := oona.NewTopics("PREFIX")
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range append(slices.Concat(topics.Specs(0), topics.RawSpecs(0), topics.EventSpecs(0)), topics.SettingsSpec(), topics.RedrivesSpec()) {
		names = append(names, "topic bus "+spec.Name)
		if address := topics.Address(oona.Address{Topic: spec.Name, Layer: "LAYER", Seed: 1}); address != spec.Name {
			names = append(names, "address bus "+address)
		}
	}
	return names
}

// namesInSource returns the names that are constants or literals in the source.
func namesInSource(t *testing.T) (names []string) {
	t.Helper()
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && file != "." || slices.Contains(notReleased, file)):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go"):
			return nil
		}
		source, err := fs.ReadFile(root, file)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, source, 0)
		if err != nil {
			return err
		}
		names = append(names, namesOfFile(parsed)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// notReleased are folders of programs and packages that are for tests.
var notReleased = []string{"bench", "scenarios", "deploy/grafana", "deploy/helm/e2e", "internal/localkafka", "internal/simulate", "bus/bustest", "bus/memory", "claimcheck/claimchecktest"}

var (
	nameConstant = regexp.MustCompile(`^(?:(exit)([A-Z]\w*)|(Header)[A-Z]\w*|(sentAt)|([rR]eason)[A-Z]\w*|[A-Z]\w*(Record))$`)
	servedPath   = regexp.MustCompile(`^(?:[A-Z]+ )?/(?:\{\$\}|[a-z][a-z0-9]*(?:/[a-z0-9]*)*)$`)
)

func namesOfFile(file *ast.File) (names []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GenDecl:
			if n.Tok == token.CONST {
				names = append(names, constantNames(n)...)
			}
		case *ast.CallExpr:
			for _, key := range logKeys(n) {
				names = append(names, "key log "+key)
			}
		case *ast.BasicLit:
			if text, err := strconv.Unquote(n.Value); err == nil && servedPath.MatchString(text) {
				method, path, ok := strings.Cut(text, " ")
				if !ok {
					method, path = "", text
				}
				names = append(names, strings.TrimSpace("path HTTP "+path+" "+method))
			}
		}
		return true
	})
	return names
}

// constantNames returns the exit statuses, headers, kinds of records and reasons among
// constants. They do not depend on the package that has them, which may be moved.
func constantNames(decl *ast.GenDecl) (names []string) {
	for _, spec := range decl.Specs {
		of := spec.(*ast.ValueSpec)
		for i, value := range of.Values {
			literal, ok := value.(*ast.BasicLit)
			found := nameConstant.FindStringSubmatch(of.Names[i].Name)
			if !ok || found == nil {
				continue
			}
			text, err := strconv.Unquote(literal.Value)
			switch {
			case found[1] != "":
				names = append(names, "exit status "+strings.ToLower(found[2])+" "+literal.Value)
			case err != nil || text == "":
			case found[5] != "":
				names = append(names, "reason any "+text)
			case found[4] != "":
				names = append(names, "header HTTP "+text)
			default:
				names = append(names, "header bus "+text)
			}
		}
	}
	return names
}

// logKeys returns the keys of a log line that are literals: every second argument
// after the text.
func logKeys(call *ast.CallExpr) (keys []string) {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !logging[selector.Sel.Name] {
		return nil
	}
	args := call.Args
	switch {
	case selector.Sel.Name == "With":
	case ofLogger(selector.X) && selector.Sel.Name != "Log":
		args = args[min(1, len(args)):] // the text may be a variable
	default:
		args = args[slices.IndexFunc(args, isText)+1:]
	}
	return keysOf(args)
}

// ofLogger reports whether an expression is a logger by its name.
func ofLogger(e ast.Expr) bool {
	if selector, ok := e.(*ast.SelectorExpr); ok {
		e = selector.Sel
	}
	name, ok := e.(*ast.Ident)
	return ok && strings.EqualFold(name.Name, "logger")
}

// keysOf returns the literals among the keys of a list of keys and values, and of a
// list that is appended to one.
func keysOf(args []ast.Expr) (keys []string) {
	for i := 0; i < len(args); i += 2 {
		if call, ok := args[i].(*ast.CallExpr); ok {
			if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "append" && len(call.Args) > 0 {
				keys = append(keys, keysOf(call.Args[1:])...)
			}
		}
		if literal, ok := args[i].(*ast.BasicLit); ok && literal.Kind == token.STRING {
			key, err := strconv.Unquote(literal.Value)
			if err == nil {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// isText reports whether an argument is a string in the source, perhaps in parts.
func isText(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return e.Kind == token.STRING
	case *ast.BinaryExpr:
		return isText(e.X) || isText(e.Y)
	}
	return false
}

// Each way to find names finds those of a program that is made up.
func TestNamesAreFound(t *testing.T) {
	got := flagsOf("probe", "Flags:\n  -h, --help        Show help.\n      --max-frames=N    As for\n                    --other, or more. (default 7,\n                    $OONA_MAX_FRAMES)\n")
	got = append(got, flagsOf("probe", "Logs:\n  --log-level=TEXT    Level. ($OONA_LOG_LEVEL)\n")...)
	source, err := parser.ParseFile(token.NewFileSet(), "probe.go", `package p
const (
	exitUsage           = 2
	HeaderPath          = "oona-path"
	reasonFull   reason = "full"
	ReasonNone   reason = ""
	other               = "other"
)
func f() {
	mux.HandleFunc("GET /livez", g)
	s.warn("a "+"text", "partition", "value", "err", err)
	logger.With("run", run).Log(ctx, level, text)
	logger.Log(ctx, level, "text", "frames", 1)
	s.logger.Warn(text, "differ", 1)
	s.logger.Info("text", append(where, "highest", 2)...)
}`, 0)
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, namesOfFile(source)...)
	registry := prometheus.NewRegistry()
	results := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "oona_probe_total", Help: "A, b."}, []string{"result", "partition"})
	results.WithLabelValues("done", "0")
	registry.MustRegister(results, prometheus.NewGauge(prometheus.GaugeOpts{Name: "go_probe"}),
		prometheus.NewGauge(prometheus.GaugeOpts{Name: "oona_lost", ConstLabels: prometheus.Labels{"reason": "full", "version": "1"}}))
	metrics, err := metricsOf(registry)
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, metrics...)
	want := []string{
		"exit status usage 2",
		"flag probe --help",
		"flag probe --log-level OONA_LOG_LEVEL",
		"flag probe --max-frames OONA_MAX_FRAMES",
		"header bus oona-path",
		"key log differ",
		"key log err",
		"key log frames",
		"key log highest",
		"key log partition",
		"key log run",
		`metric /metrics oona_lost{reason,version}`,
		`metric /metrics oona_lost{reason="full"}`,
		`metric /metrics oona_probe_total{partition,result}`,
		`metric /metrics oona_probe_total{result="done"}`,
		"path HTTP /livez GET",
		"reason any full",
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
