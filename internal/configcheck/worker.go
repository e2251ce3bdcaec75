// Package configcheck checks that the configurations of workers are valid and agree
// with each other. It runs the binaries of the workers with --check, so that each
// configuration is validated by the version that will run with it.
package configcheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/morphogenetic/oona/internal/address"
)

// The kinds of workers. They are the names of the binaries, too.
const (
	Ingest    = "ingest"
	Aggregate = "aggregate"
	Exporter  = "exporter"
)

// NoFile is the File of a worker without a configuration file.
const NoFile = "-"

// Worker is a worker's configuration.
type Worker struct {
	Kind      string
	File      string
	Effective string         // YAML, as the worker's --check prints it
	Warnings  []string       // that the worker's --check prints
	settings  map[string]any // of Effective, by the names of flags
	given     map[string]any // of File, by the names of flags
}

func (w Worker) String() string {
	if w.File == NoFile {
		return w.Kind + " without a file"
	}
	return w.Kind + " " + w.File
}

// Strings returns the value of a setting that is a list.
func (w Worker) Strings(name string) (all []string) {
	values, _ := w.settings[name].([]any)
	for _, v := range values {
		all = append(all, fmt.Sprint(v))
	}
	return all
}

// Text returns the value of a setting as text, or "".
func (w Worker) Text(name string) string {
	if v, known := w.settings[name]; known {
		return fmt.Sprint(v)
	}
	return ""
}

// On returns the value of a setting that is a boolean.
func (w Worker) On(name string) bool {
	on, _ := w.settings[name].(bool)
	return on
}

// gives reports whether the worker's file or a variable gives a setting.
func (w Worker) gives(name string) bool {
	_, given := w.given[name]
	_, set := os.LookupEnv("OONA_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")))
	return given || set
}

// listener is an address that a worker listens on.
type listener struct {
	flag    string
	address address.Address
}

// listeners returns the addresses that the worker listens on. The worker has
// validated them.
func (w Worker) listeners() (all []listener) {
	for _, name := range []string{"listen", "admin-address"} {
		if at, err := address.Parse(w.Text(name)); err == nil {
			all = append(all, listener{name, at})
		}
	}
	return all
}

// duration returns the value of a setting that is a duration. The worker has
// validated it.
func (w Worker) duration(name string) time.Duration {
	d, _ := time.ParseDuration(w.Text(name))
	return d
}

// askTimeout is the time limit for a binary to print its configuration.
const askTimeout = 30 * time.Second

// Ask runs the binary of a kind of worker, in directory bin, to validate the
// configuration file. The error is what the binary prints, or why it cannot run.
func Ask(ctx context.Context, bin, kind, file string) (Worker, error) {
	w := Worker{Kind: kind, File: file}
	args := []string{"--check"}
	if file != NoFile {
		args = append(args, "--config", file)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var out, messages bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(bin, kind), args...)
	cmd.Stdout, cmd.Stderr = &out, &messages
	err := cmd.Run()
	if _, refused := errors.AsType[*exec.ExitError](err); refused && messages.Len() > 0 {
		said, _, _ := strings.Cut(messages.String(), "\nRun "+kind)
		// The error names the worker's file already.
		said = regexp.MustCompile(regexp.QuoteMeta(file)+`:(\d+)`).ReplaceAllString(said, "line $1")
		return w, fmt.Errorf("%s: %s", w, strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(said), kind+": "), file+": "))
	}
	if errors.Is(err, os.ErrNotExist) {
		return w, fmt.Errorf("%s: the binary %s does not exist; give the directory that has it (--bin)", w, cmd.Path)
	}
	if err != nil {
		return w, fmt.Errorf("%s: run %s --check: %w", w, cmd.Path, err)
	}
	w.Effective = out.String()
	for line := range strings.Lines(messages.String()) {
		if warning, ok := strings.CutPrefix(strings.TrimSpace(line), kind+": warning: "); ok {
			w.Warnings = append(w.Warnings, warning)
		}
	}
	if err := yaml.Unmarshal(out.Bytes(), &w.settings); err != nil {
		return w, fmt.Errorf("%s: read the output of %s --check: %w", w, cmd.Path, err)
	}
	if file == NoFile {
		return w, nil
	}
	said, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(said, &w.given)
	}
	if err != nil {
		return w, fmt.Errorf("%s: %w", w, err)
	}
	return w, nil
}
