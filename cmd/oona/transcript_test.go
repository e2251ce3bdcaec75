package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// transcript is what commands print, and their exit statuses. It is compared with a
// golden file, which shows what the commands say, so that tests need not search their
// output for words.
type transcript struct {
	t     *testing.T
	text  strings.Builder
	known []string // what differs from one run to the next, and what it is replaced by
}

// newTranscript returns a transcript. Of known, every second text replaces the one
// before it.
func newTranscript(t *testing.T, known ...string) *transcript {
	t.Helper()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return &transcript{t: t, known: append(known, "instance is "+host, "instance is HOST")}
}

// note says what the next commands show.
func (s *transcript) note(text string) { fmt.Fprintf(&s.text, "# %s\n", text) }

// run runs a command line.
func (s *transcript) run(args ...string) {
	s.t.Helper()
	status, out, messages := run(s.t, args...)
	s.add(args, out+messages, status)
}

// messages runs a command line and returns the output, which is not in the transcript.
func (s *transcript) messages(args ...string) (out string) {
	s.t.Helper()
	status, out, messages := run(s.t, args...)
	s.add(args, messages, status)
	return out
}

func (s *transcript) add(args []string, says string, status int) {
	fmt.Fprintf(&s.text, "$ oona %s\n%s[exit status %d]\n\n", strings.Join(args, " "), says, status)
}

var (
	transcriptTime   = regexp.MustCompile(`\b2\d\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`)
	transcriptMicros = regexp.MustCompile(`\b1[6-9]\d{14}\b`)
)

// golden compares the transcript with a file.
func (s *transcript) golden(name string) {
	s.t.Helper()
	text := strings.NewReplacer(s.known...).Replace(s.text.String())
	golden(s.t, name, transcriptMicros.ReplaceAllString(transcriptTime.ReplaceAllString(text, "TIME"), "MICROS"))
}
