package demo

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
)

// What the demo prints about itself fits a terminal of 80 columns.
func TestHeaderFitsATerminal(t *testing.T) {
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, tensors := range []*claimcheck.Store{nil, {}} {
		s := &services{
			topics: topics, brokers: []string{"127.0.0.1:49092"}, embedded: true, tensors: tensors,
			ingestURL: "http://127.0.0.1:48080", adminURL: "http://127.0.0.1:49103", tensorsURL: "http://127.0.0.1:49000/kasmina-tensors",
		}
		text := s.banner(DefaultConfig())
		if n := strings.Count(text, "\n"); n > 15 {
			t.Errorf("%d lines", n)
		}
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
				t.Errorf("%d columns: %s", n, line)
			}
		}
	}
}
