package lint

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"gopkg.in/yaml.v3"
)

// runbook is where the alerts say what to do.
const runbook = "https://github.com/morphogenetic/oona/blob/main/docs/operations.md"

// alertGroups has what the runbook test reads of a file of rules.
type alertGroups struct {
	Groups []struct {
		Rules []struct {
			Alert       string
			Annotations map[string]string
		}
	}
}

// Each alert has a link to the heading of the operations page that explains it.
func TestAlertsHaveRunbooks(t *testing.T) {
	var all alertGroups
	for _, name := range alertFiles {
		var file alertGroups
		if err := yaml.Unmarshal([]byte(page(t, alertFolder+name+".yml")), &file); err != nil {
			t.Fatal(err)
		}
		all.Groups = append(all.Groups, file.Groups...)
	}
	headings := anchors(page(t, "../../docs/operations.md"))
	seen := 0
	for _, group := range all.Groups {
		for _, rule := range group.Rules {
			seen++
			url := rule.Annotations["runbook_url"]
			anchor, ok := strings.CutPrefix(url, runbook+"#")
			if heading := headings[anchor]; !ok || !slices.Contains(alertHeading.FindAllString(heading, -1), rule.Alert) {
				t.Errorf("%s has the runbook %q, whose heading is %q", rule.Alert, url, heading)
			}
		}
	}
	if seen < 15 {
		t.Errorf("there are only %d alerts", seen)
	}
}

// heading is a heading of Markdown. It has no closing number signs.
var heading = regexp.MustCompile(`^#{1,6} +(.*?) *$`)

// anchors returns the headings of a page by their anchors, as GitHub makes them: in
// lower case, without punctuation, spaces as hyphens, and a number after those that come
// again.
func anchors(page string) map[string]string {
	all := map[string]string{}
	fenced := false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		match := heading.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if fenced || match == nil {
			continue
		}
		base := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.In(r, unicode.Letter, unicode.Mark, unicode.Digit, unicode.Pc), r == '-':
				return unicode.ToLower(r)
			}
			return -1
		}, match[1])
		anchor := base
		for n := 1; ; n++ {
			if _, taken := all[anchor]; !taken {
				break
			}
			anchor = base + "-" + strconv.Itoa(n)
		}
		all[anchor] = match[1]
	}
	return all
}

func TestAnchors(t *testing.T) {
	got := anchors("# Oona's `--flag_x`, OonaB\n```\n# no heading\n```\n## A -> B\n## A -> B\n## Größe 2.0\n")
	want := map[string]string{"oonas---flag_x-oonab": "Oona's `--flag_x`, OonaB", "a---b": "A -> B", "a---b-1": "A -> B", "größe-20": "Größe 2.0"}
	if len(got) != len(want) {
		t.Errorf("the anchors are %v", got)
	}
	for anchor, text := range want {
		if got[anchor] != text {
			t.Errorf("the anchor %s is of %q, want %q", anchor, got[anchor], text)
		}
	}
}
