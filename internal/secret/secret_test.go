package secret

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
)

// mount is a directory that is changed like a Secret that Kubernetes mounts: the name
// is a link, which is replaced.
type mount struct {
	t    *testing.T
	path string
	n    int
}

func newMount(t *testing.T, content string) *mount {
	m := &mount{t: t, path: filepath.Join(t.TempDir(), "password")}
	m.change(content)
	return m
}

func (m *mount) change(content string) {
	m.t.Helper()
	m.n++
	file := m.path + "." + string(rune('a'+m.n))
	err := os.WriteFile(file, []byte(content), 0o600)
	if err == nil {
		err = os.Symlink(file, m.path+".new")
	}
	if err == nil {
		err = os.Rename(m.path+".new", m.path)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func TestValueFollowsItsFile(t *testing.T) {
	m := newMount(t, " old\n")
	now := time.Unix(1_000, 0)
	files := NewFiles(slog.New(slog.DiscardHandler))
	files.now = func() time.Time { return now }
	refused := errors.New("refused")
	v, err := Open(files, "--password-file", []string{m.path}, func(contents [][]byte) (string, error) {
		text, _ := Text(contents)
		if text == "bad" {
			return "", refused
		}
		return text, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	failures := func() float64 { return testutil.ToFloat64(files.failures.WithLabelValues("--password-file")) }
	for _, step := range []struct {
		content  string // "-": the file is removed
		after    time.Duration
		want     string
		failures float64
	}{
		{"new", Interval - 1, "old", 0},
		{"new", 1, "new", 0},
		{"bad", Interval, "new", 1},
		{"bad", Interval, "new", 2},
		{"  ", Interval, "new", 3},
		{"new", Interval, "new", 3},
		{"-", Interval, "new", 4},
		{"last", Interval, "last", 4},
	} {
		if step.content == "-" {
			if err := os.Remove(m.path); err != nil {
				t.Fatal(err)
			}
		} else {
			m.change(step.content)
		}
		now = now.Add(step.after)
		if got := v.Get(); got != step.want || failures() != step.failures {
			t.Errorf("with the content %q, got %q and %v failures, want %q and %v", step.content, got, failures(), step.want, step.failures)
		}
	}
	if got, want := testutil.ToFloat64(files.loaded.WithLabelValues("--password-file")), float64(now.Unix()); got != want {
		t.Errorf("loaded at %v, want %v", got, want)
	}
}

func TestOpenNamesTheSetting(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		path string
		want error
	}{
		"missing": {filepath.Join(t.TempDir(), "missing"), fs.ErrNotExist},
		"empty":   {empty, errEmpty},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(nil, "--password-file", []string{test.path}, Text)
			if field, ok := errors.AsType[*oona.FieldError](err); !ok || field.Field != "--password-file" || !errors.Is(err, test.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// The log has each new reason of a series of failures once, and the same reason again
// after the file was good.
func TestEachReasonIsLogged(t *testing.T) {
	m := newMount(t, "good")
	now := time.Unix(1_000, 0)
	var log bytes.Buffer
	files := NewFiles(slog.New(slog.NewTextHandler(&log, nil)))
	files.now = func() time.Time { return now }
	v, err := Open(files, "--password-file", []string{m.path}, func(contents [][]byte) (string, error) {
		text, _ := Text(contents)
		if text != "good" {
			return "", errors.New("refused " + text)
		}
		return text, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		content string
		lines   int
	}{{"a", 1}, {"a", 0}, {" ", 1}, {"b", 1}, {"b", 0}, {"a", 1}, {"good", 0}, {"a", 1}} {
		m.change(step.content)
		log.Reset()
		now = now.Add(Interval)
		v.Get()
		if got := strings.Count(log.String(), "level=ERROR"); got != step.lines {
			t.Errorf("with the content %q, the log has %d errors, want %d:\n%s", step.content, got, step.lines, log.String())
		}
	}
}
