// Package configcheck says whether the workers that are to run beside each other
// are configured rightly. It asks their own binaries (--check), so that what is
// validated is what will run, by its version and its environment.
package configcheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/morphogenetic/oona/internal/address"
)

// The kinds of workers, which are the names of their binaries.
const (
	Ingest    = "ingest"
	Aggregate = "aggregate"
	Exporter  = "exporter"
)

// NoFile in place of a file is a worker without one.
const NoFile = "-"

// Worker is a worker's configuration.
type Worker struct {
	Kind      string
	File      string         // as it was named
	Effective string         // YAML, as the worker's --check prints it
	settings  map[string]any // the same, by the names of flags
	given     map[string]any // those that its file or a variable gives, by name
}

func (w Worker) String() string {
	if w.File == NoFile {
		return w.Kind + " without a file"
	}
	return w.Kind + " " + w.File
}

// Strings is a setting that is a list.
func (w Worker) Strings(name string) (all []string) {
	values, _ := w.settings[name].([]any)
	for _, v := range values {
		all = append(all, fmt.Sprint(v))
	}
	return all
}

// Text is a setting as it is written.
func (w Worker) Text(name string) string {
	if v, known := w.settings[name]; known {
		return fmt.Sprint(v)
	}
	return ""
}

// On is a setting that is on or off.
func (w Worker) On(name string) bool {
	on, _ := w.settings[name].(bool)
	return on
}

// gives reports whether a setting is not the worker's default.
func (w Worker) gives(name string) bool {
	_, given := w.given[name]
	_, set := os.LookupEnv("OONA_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")))
	return given || set
}

// listener is an address at which a worker listens.
type listener struct {
	flag    string
	address address.Address
}

// listeners are the addresses at which the worker listens; it has validated them.
func (w Worker) listeners() (all []listener) {
	for _, name := range []string{"listen", "admin-address"} {
		if at, err := address.Parse(w.Text(name)); err == nil {
			all = append(all, listener{name, at})
		}
	}
	return all
}

// duration is a setting of time; a worker has validated it.
func (w Worker) duration(name string) time.Duration {
	d, _ := time.ParseDuration(w.Text(name))
	return d
}

// askTimeout is how long a binary may take to print its configuration.
const askTimeout = 30 * time.Second

// Ask has the binary of a kind of worker, in folder bin, validate its
// configuration. An error is what the binary says, or why it does not run.
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
		return w, fmt.Errorf("%s: %s", w, strings.TrimPrefix(strings.TrimSpace(said), kind+": "))
	}
	if errors.Is(err, os.ErrNotExist) {
		return w, fmt.Errorf("%s: there is no binary %s; give the folder that has it (--bin)", w, cmd.Path)
	}
	if err != nil {
		return w, fmt.Errorf("%s: ask %s: %w", w, cmd.Path, err)
	}
	w.Effective = out.String()
	if err := yaml.Unmarshal(out.Bytes(), &w.settings); err != nil {
		return w, fmt.Errorf("%s: read what %s --check prints: %w", w, cmd.Path, err)
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
