package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/internal/worker/workertest"
	"github.com/morphogenetic/oona/windows"
)

func parse(t *testing.T, args ...string) (*config, string, error) {
	t.Helper()
	cfg := defaults()
	var out bytes.Buffer
	_, err := worker.Parse(cfg, "aggregate", "", args, &out)
	return cfg, out.String(), err
}

func TestDefaultsAreTheEngines(t *testing.T) {
	cfg, _, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Windows; got != windows.DefaultConfig() {
		t.Errorf("windows are %+v, want %+v", got, windows.DefaultConfig())
	}
	if cfg.WorkerID == "" {
		t.Error("the worker has no name")
	}
}

// Every field of the engine's configuration has a flag, except the generation and the
// version of the reducers, which only the log sets.
func TestEveryWindowSettingHasAFlag(t *testing.T) {
	flags := reflect.TypeFor[windows.Config]()
	for i := range flags.NumField() {
		field := flags.Field(i)
		if field.Tag.Get("kong") != "-" && (field.Tag.Get("name") == "" || field.Tag.Get("help") == "") {
			t.Errorf("%s has no flag, or no help", field.Name)
		}
	}
}

func TestSettingsComeFromFlagsEnvironmentAndFileInThatOrder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "aggregate.yaml")
	if err := os.WriteFile(file, []byte("window-length: 20s\nidle-horizon: 2m\nmax-layers: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OONA_IDLE_HORIZON", "3m")
	t.Setenv("OONA_MAX_LAYERS", "8")
	cfg, _, err := parse(t, "--config", file, "--max-layers=9")
	if err != nil {
		t.Fatal(err)
	}
	w := cfg.Windows
	if w.Length != 20*time.Second || w.IdleHorizon != 3*time.Minute || w.MaxLayers != 9 {
		t.Errorf("length %s (file), horizon %s (environment), layers %d (flag)", w.Length, w.IdleHorizon, w.MaxLayers)
	}
}

func TestEffectiveConfigurationReadsBack(t *testing.T) {
	_, effective, err := parse(t, "--check", "--window-length=5s", "--worker=w", "--skip-record=3:17", "--skip-record=4:0")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "aggregate.yaml")
	if err := os.WriteFile(file, []byte(effective), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, again, err := parse(t, "--check", "--config", file); err != nil || again != effective || !strings.Contains(again, "window-length: 5s") || !strings.Contains(again, "3:17") {
		t.Errorf("read again it is\n%s\nerror %v", again, err)
	}
}

func TestConformance(t *testing.T) {
	workertest.Run(t, func(args ...string) (string, error) {
		_, output, err := parse(t, args...)
		return output, err
	})
}

// Each error names the flag to change.
func TestBadConfiguration(t *testing.T) {
	for arg, field := range map[string]string{
		"--window-length=0s":     "--window-length",
		"--tick-interval=9ms":    "--tick-interval",
		"--idle-horizon=1s":      "--idle-horizon",
		"--max-timelines=0":      "--max-timelines",
		"--max-timelines=100000": "--max-timelines",
		"--group-instance=a b":   "--group-instance",
		"--group=":               "--group",
		"--worker=a b":           "--worker",
		"--allowed-lateness=-1s": "--allowed-lateness",
	} {
		_, _, err := parse(t, arg)
		if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != field {
			t.Errorf("%s: error is %v, want one of %s", arg, err, field)
		}
	}
	for _, arg := range []string{"--skip-record=3", "--skip-record=3:-1"} {
		if _, _, err := parse(t, arg); err == nil || !strings.HasPrefix(err.Error(), "--skip-record: ") {
			t.Errorf("%s: error is %v", arg, err)
		}
	}
	if _, _, err := parse(t, "--catalogue=no-such"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a catalogue that does not exist: error is %v", err)
	}
}

// A password that goes to the brokers without TLS is warned of.
func TestAPasswordInClearTextIsWarnedOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("password"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := parse(t, "--bus-sasl=plain", "--bus-sasl-username=oona", "--bus-sasl-password-file", file)
	if err != nil {
		t.Fatal(err)
	}
	if warnings := cfg.Warnings(); len(warnings) != 1 || warnings[0].Field != "--bus-sasl" {
		t.Errorf("the warnings are %v", warnings)
	}
}
