// Package secret reads files that may change while the process runs: passwords,
// tokens, certificates, and lists of who may do what.
//
// A file is looked at again every [Interval] while [Files.Run] runs, and otherwise when its
// content is needed and the last look is older than that. So a change takes effect without
// a restart. Only the content counts: Kubernetes replaces mounted files by renaming a
// symbolic link. Content that cannot be read or parsed is logged and counted, and the last
// good content stays in use.
package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
)

// Interval is the time between two looks at a file.
const Interval = 10 * time.Second

// Files are the secret files of a process. Its zero value is not usable; a nil *Files
// is: it logs and counts nothing.
type Files struct {
	logger   *slog.Logger
	failures *prometheus.CounterVec
	loaded   *prometheus.GaugeVec
	expiry   *prometheus.GaugeVec
	start    *prometheus.GaugeVec
	now      func() time.Time

	mu           sync.Mutex
	looks        []func() // one for each value
	certificates map[string]*lifetime
}

// NewFiles returns Files that log to logger.
func NewFiles(logger *slog.Logger) *Files {
	return &Files{
		logger: logger,
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oona_secret_file_failures_total",
			Help: "Times that a changed secret file could not be used, by the setting that names it. The last valid content stays in use.",
		}, []string{"setting"}),
		loaded: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "oona_secret_file_loaded_timestamp_seconds",
			Help: "When the content of a secret file that is in use was read, by the setting that names it, in Unix time.",
		}, []string{"setting"}),
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "oona_certificate_expiry_timestamp_seconds",
			Help: "When the worker's own certificate expires, by the setting that names its file, in Unix time.",
		}, []string{"setting"}),
		start: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "oona_certificate_start_timestamp_seconds",
			Help: "When the worker's own certificate becomes valid, by the setting that names its file, in Unix time.",
		}, []string{"setting"}),
		now:          time.Now,
		certificates: make(map[string]*lifetime),
	}
}

// Collectors returns the metrics of the files.
func (f *Files) Collectors() []prometheus.Collector {
	return []prometheus.Collector{f.failures, f.loaded, f.expiry, f.start}
}

// Run looks at all files every Interval, and warns of certificates that expire, until ctx
// ends. So an idle process notices changes and faults, too.
func (f *Files) Run(ctx context.Context) error {
	if f == nil {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			f.lookAtAll()
		}
	}
}

func (f *Files) lookAtAll() {
	f.mu.Lock()
	looks := slices.Clone(f.looks)
	f.mu.Unlock()
	for _, look := range looks {
		look()
	}
	f.warnOfExpiry()
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
// Run keeps looking at it, so open a file only once in a process.
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
	if files != nil {
		files.mu.Lock()
		defer files.mu.Unlock()
		files.looks = append(files.looks, func() { v.lookIfOlder(0) })
	}
	return v, nil
}

// Get returns the value. It reads the files again if the last look is older than
// Interval.
func (v *Value[T]) Get() T { return v.lookIfOlder(Interval) }

// lookIfOlder reads the files again if the last look is at least as old as age, and
// returns the value.
func (v *Value[T]) lookIfOlder(age time.Duration) T {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now := v.now(); now.Sub(v.looked) >= age {
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

var errNotOneLine = errors.New("it has several lines, or control characters; it must be one line of text")

// Text returns the content of one file, which must be one line of text, without the spaces
// and line ends around it. It is a parse function for Open. Its error does not quote the
// file.
func Text(contents [][]byte) (string, error) {
	text := string(bytes.TrimSpace(contents[0]))
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return "", errNotOneLine
	}
	return text, nil
}
