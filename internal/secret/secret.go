// Package secret reads files that may change while the process runs: passwords,
// tokens, certificates, and lists of who may do what.
//
// A file is looked at again when its content is needed and the last look is older than
// [Interval], so a change takes effect without a restart. Only the content counts:
// Kubernetes replaces mounted files by renaming a symbolic link. Content that cannot be
// read or parsed is logged and counted, and the last good content stays in use.
package secret

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
)

// Interval is the least time between two looks at a file.
const Interval = 10 * time.Second

// Files are the secret files of a process. Its zero value is not usable; a nil *Files
// is: it logs and counts nothing.
type Files struct {
	logger   *slog.Logger
	failures *prometheus.CounterVec
	loaded   *prometheus.GaugeVec
	now      func() time.Time
}

// NewFiles returns Files that log to logger.
func NewFiles(logger *slog.Logger) *Files {
	return &Files{
		logger: logger,
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oona_secret_file_failures_total",
			Help: "Times that a changed secret file could not be used, by the setting that names it. The last good content stays in use.",
		}, []string{"setting"}),
		loaded: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "oona_secret_file_loaded_timestamp_seconds",
			Help: "When the content of a secret file that is in use was read, by the setting that names it, in Unix time.",
		}, []string{"setting"}),
		now: time.Now,
	}
}

// Collectors returns the metrics of the files.
func (f *Files) Collectors() []prometheus.Collector {
	return []prometheus.Collector{f.failures, f.loaded}
}

// Failed counts and logs that a secret cannot be renewed. It is for secrets that are not
// only files. setting is the flag that stands for them.
func (f *Files) Failed(setting, message string, err error) {
	if f != nil {
		f.failures.WithLabelValues(setting).Inc()
		f.logger.Error(message, "err", err, "setting", setting)
	}
}

// Value is what one or several files contain, parsed. It is safe for concurrent use.
type Value[T any] struct {
	files   *Files
	setting string
	paths   []string
	parse   func(contents [][]byte) (T, error)

	mu       sync.Mutex
	looked   time.Time
	contents [][]byte // of the last look that could read the files
	value    T        // the last good one
	failing  bool
	reason   string // of the last failure that was logged since the value was good
}

// Open reads the files and returns their value. parse gets the contents in the order of
// paths; files that belong together, such as a certificate and its key, are one value.
// setting is the flag that names the first file, with its dashes. The error wraps an
// *oona.FieldError for it.
func Open[T any](files *Files, setting string, paths []string, parse func(contents [][]byte) (T, error)) (*Value[T], error) {
	v := &Value[T]{files: files, setting: setting, paths: paths, parse: parse}
	contents, err := v.read()
	if err == nil {
		v.value, err = parse(contents)
	}
	if err != nil {
		return nil, v.wrong(err)
	}
	v.contents, v.looked = contents, v.now()
	v.noteLoaded()
	return v, nil
}

// Get returns the value. It reads the files again if the last look is older than
// Interval.
func (v *Value[T]) Get() T {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now := v.now(); now.Sub(v.looked) >= Interval {
		v.looked = now
		v.look()
	}
	return v.value
}

// look reads the files, and parses them if they have changed.
func (v *Value[T]) look() {
	contents, err := v.read()
	if err == nil && !v.failing && slices.EqualFunc(contents, v.contents, bytes.Equal) {
		return
	}
	var value T
	if err == nil {
		value, err = v.parse(contents)
	}
	if err != nil {
		v.noteFailure(err)
		return
	}
	changed := !slices.EqualFunc(contents, v.contents, bytes.Equal)
	v.value, v.contents, v.failing, v.reason = value, contents, false, ""
	v.noteLoaded()
	if changed && v.files != nil {
		v.files.logger.Info("a secret file has changed, and its new content is used", "setting", v.setting, "file", v.paths[0])
	}
}

func (v *Value[T]) read() (contents [][]byte, err error) {
	for _, path := range v.paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(content)) == 0 {
			return nil, fmt.Errorf("%s: %w", path, errEmpty)
		}
		contents = append(contents, content)
	}
	return contents, nil
}

var errEmpty = errors.New("the file is empty")

func (v *Value[T]) wrong(err error) error {
	return fmt.Errorf("%w: %w", &oona.FieldError{Field: v.setting, Reason: "cannot use " + strings.Join(v.paths, " and ")}, err)
}

func (v *Value[T]) now() time.Time {
	if v.files == nil {
		return time.Now()
	}
	return v.files.now()
}

func (v *Value[T]) noteLoaded() {
	if v.files != nil {
		v.files.failures.WithLabelValues(v.setting) // so that the series exists
		v.files.loaded.WithLabelValues(v.setting).Set(float64(v.now().UnixNano()) / 1e9)
	}
}

// noteFailure counts each failed look. It logs the first of a series, and each with
// another reason than the one before.
func (v *Value[T]) noteFailure(err error) {
	v.failing = true
	if v.files == nil {
		return
	}
	v.files.failures.WithLabelValues(v.setting).Inc()
	if reason := err.Error(); reason != v.reason {
		v.reason = reason
		v.files.logger.Error("a changed secret file cannot be used; its last good content stays in use, and it is read again until it is good", "err", v.wrong(err), "setting", v.setting)
	}
}

// Text returns the content of one file as text without the spaces and line ends around
// it. It is a parse function for Open.
func Text(contents [][]byte) (string, error) {
	return string(bytes.TrimSpace(contents[0])), nil
}
