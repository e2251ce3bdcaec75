package top

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/verdict"
)

func to[T any](x T) *T { return &x }

// installation returns a snapshot of an installation with some faults.
func installation(zone *time.Location) Snapshot {
	at := time.Date(2026, 11, 27, 23, 0, 0, 0, zone)
	s := Snapshot{At: at}
	seeds := oona.SeedCensus{Seen: 96, Active: 16, ByState: [oona.StateCount]int64{12, 0, 15, 1, 0, 0, 0, 4, 54, 8, 2}}
	for n := range 30 {
		r := watch.Row{
			Run: "01M8FMZBWBQB1CN59NZ181C9Z2", Layer: oona.LayerID(fmt.Sprintf("enc.%d", n)), Judged: true, Seeds: seeds,
			FramesPerSecond: float64(n) / 2, Main: watch.Cell{Name: "gradient_norm", Value: "0.04"},
		}
		switch n {
		case 2:
			r.Age, r.Verdict.Level = 50*time.Second, verdict.Critical
			r.Verdict.Reasons = []verdict.Reason{
				{Metric: "gradient_norm", Kind: verdict.High, Level: verdict.Critical, Median: 4.1, Low: 0.02, High: 0.083},
				{Metric: "reconstruction_loss", Kind: verdict.Stuck, Level: verdict.Warning, Part: 4},
			}
		case 10:
			r.Age, r.Verdict.Level = 3*time.Hour, verdict.Warning
			r.Verdict.Reasons = []verdict.Reason{{Kind: verdict.SilentSeeds, Level: verdict.Warning, Part: 20, Of: 96}}
		case 11:
			r.Verdict.Learning = true
		}
		s.Layers = append(s.Layers, r)
	}
	slices.SortFunc(s.Layers, watch.Row.Compare)
	for n := range int32(12) {
		s.Partitions = append(s.Partitions, Partition{
			Partition: n, Owner: fmt.Sprintf("oona-aggregate-%d", n%2), End: 1000 * int64(n), Read: to(1000*int64(n) - int64(n)),
			Lag: to(int64(n)), LagSeconds: to(float64(n) / 4), PerSecond: to(12.5),
		})
	}
	s.Partitions[7] = Partition{Partition: 7, End: 4711, Fault: "it is not a commit of an aggregator: its metadata is \"x\""}
	s.Sides = []Side{
		{Name: "late", Topic: "kasmina.telemetry.seed.late", Records: 12, PerSecond: to(0.5), PerMinute: to(3.0)},
		{Name: "quarantine", Topic: "kasmina.telemetry.seed.quarantine", PerSecond: to(0.0), PerMinute: to(0.0)},
		{Name: "overflow", Topic: "kasmina.telemetry.seed.overflow"},
		{Name: "dead letters", Topic: "kasmina.telemetry.seed.metrics.dead", Records: 1234567},
	}
	s.Ingests = []Ingest{
		{Name: "oona-ingest-0", Seen: at.Add(-2 * time.Second), PerSecond: to(1234.5), Worker: "http://oona-ingest-0:9101", Refused: to(0.25), BusUp: to(true)},
		{Name: "oona-ingest-1", Seen: at.Add(-3 * time.Minute), PerSecond: to(15.0)},
		{Worker: "http://oona-ingest-2:9101", Fault: "Get \"http://oona-ingest-2:9101/metrics\": connection refused"},
	}
	return s
}

// golden compares with a file. With OONA_UPDATE_GOLDEN, it writes the file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("OONA_UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant %s\n%s", got, path, want)
	}
}

// session sends a Model the messages that a terminal sends.
type session struct {
	t     *testing.T
	model tea.Model
	ended bool
}

func newSession(t *testing.T, width, height int, color bool) *session {
	s := &session{t: t, model: NewModel(color)}
	s.send(tea.WindowSizeMsg{Width: width, Height: height}, installation(time.Local))
	return s
}

func (s *session) send(messages ...tea.Msg) {
	for _, msg := range messages {
		var cmd tea.Cmd
		if s.model, cmd = s.model.Update(msg); cmd != nil {
			_, s.ended = cmd().(tea.QuitMsg)
		}
	}
}

// press sends keys, each of which is a character or a name in angle brackets.
func (s *session) press(keys string) {
	named := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "backspace": tea.KeyBackspace, "down": tea.KeyDown, "up": tea.KeyUp, "pgdn": tea.KeyPgDown, "pgup": tea.KeyPgUp, "home": tea.KeyHome, "end": tea.KeyEnd}
	for keys != "" {
		if name, rest, found := strings.Cut(keys[1:], ">"); keys[0] == '<' && found {
			code, known := named[name]
			if !known {
				s.t.Fatalf("no key %s", name)
			}
			s.send(tea.KeyPressMsg{Code: code})
			keys = rest
			continue
		}
		s.send(tea.KeyPressMsg{Code: rune(keys[0]), Text: keys[:1]})
		keys = keys[1:]
	}
}

// screen returns the lines, and checks that they fit.
func (s *session) screen() []string {
	s.t.Helper()
	m := s.model.(Model)
	view := m.View()
	lines := strings.Split(view.Content, "\n")
	if len(lines) > m.height || !view.AltScreen {
		s.t.Errorf("%d lines on %d rows, alternate screen: %t", len(lines), m.height, view.AltScreen)
	}
	for _, line := range lines {
		if n := ansi.StringWidth(line); n > m.width {
			s.t.Errorf("%d columns on a terminal of %d: %s", n, m.width, line)
		}
	}
	return lines
}

// rows returns, for each row, the first word that begins with a prefix.
func (s *session) rows(prefix string) (found []string) {
	for _, line := range s.screen()[above:] {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, prefix) {
				found = append(found, word)
				break
			}
		}
	}
	return found
}

func TestViews(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {120, 40}} {
		var text strings.Builder
		s := newSession(t, size[0], size[1], false)
		for _, keys := range []string{"1", "2", "3", "4", "?"} {
			s.press(keys)
			for _, line := range s.screen() {
				if keys == "?" && size[0] == 80 && strings.Contains(line, mark) {
					t.Errorf("the help does not fit: %s", line)
				}
				text.WriteString(strings.TrimRight("|"+line, " ") + "\n")
			}
			text.WriteString("\n")
		}
		golden(t, fmt.Sprintf("views-%dx%d.txt", size[0], size[1]), text.String())
	}
}

// The screen fits the terminal, whatever its size.
func TestViewsOfAllSizes(t *testing.T) {
	for _, color := range []bool{false, true} {
		s := newSession(t, 80, 24, color)
		faulty := installation(time.Local)
		faulty.Faults = []string{"partitions: " + strings.Repeat("the bus is down ", 30)}
		s.send(faulty)
		for width := range 130 {
			s.send(tea.WindowSizeMsg{Width: width, Height: 1 + width%30})
			for _, keys := range []string{"1", "2", "3", "4", "?", "q"} {
				if keys == "q" {
					keys = "<esc>"
				}
				s.press(keys)
				s.screen()
			}
		}
	}
}

// If the layers belong to several runs, the column RUN is left out last. If they belong to one run, it
// is left out first.
func TestRunsAreTold(t *testing.T) {
	for _, runs := range []int{1, 2} {
		s, all := newSession(t, 80, 24, false), installation(time.Local)
		for i := range all.Layers {
			all.Layers[i].Run = oona.RunID(fmt.Sprintf("run-%d", i%runs))
		}
		s.send(all)
		header := s.screen()[above-1]
		if got := strings.Contains(header, "RUN"); got != (runs > 1) {
			t.Errorf("with %d runs the header is %q", runs, header)
		}
	}
}

func TestSorting(t *testing.T) {
	s := newSession(t, 120, 40, false)
	begins := func(prefix string, want ...string) {
		t.Helper()
		if got := s.rows(prefix); !slices.Equal(got[:min(len(got), len(want))], want) {
			t.Errorf("the rows begin with %q, want %q", got, want)
		}
	}
	begins("enc.", "enc.2", "enc.10", "enc.0", "enc.1", "enc.3") // the worst first
	s.press("ss")
	begins("enc.", "enc.0", "enc.1", "enc.2", "enc.3")
	if header := s.screen()[above-1]; !strings.Contains(header, "LAYER\u25b2") {
		t.Errorf("the header does not say how rows are sorted: %s", header)
	}
	s.press("r")
	begins("enc.", "enc.29", "enc.28")
	s.press("rs")
	begins("enc.", "enc.2", "enc.10")
	s.press("ss")
	begins("enc.", "enc.29", "enc.28") // those with the most frames first
	s.press("ss")
	begins("enc.", "enc.2", "enc.10", "enc.0") // the worst first again
	s.press("2ss")
	begins("oona-aggregate-", "oona-aggregate-1", "oona-aggregate-0") // the greatest lag first
	if first := strings.Fields(s.screen()[above]); first[0] != "11" {
		t.Errorf("the partition with the greatest lag is not first: %q", first)
	}
}

func TestFiltering(t *testing.T) {
	s := newSession(t, 120, 40, false)
	s.press("/enc.2")
	if got := s.rows("enc."); len(got) != 11 || !strings.Contains(s.screen()[1], "enc.2_") {
		t.Errorf("while the filter is typed, the rows are %q", got)
	}
	s.press("<backspace>1<enter>")
	if got := s.rows("enc."); len(got) != 11 || got[0] != "enc.10" || !strings.Contains(s.screen()[1], `filter "enc.1": 11 of 30`) {
		t.Errorf("with another filter, the rows are %q, the summary is %s", got, s.screen()[1])
	}
	s.send(installation(time.Local)) // an update keeps the filter
	if got := s.rows("enc."); len(got) != 11 {
		t.Errorf("after an update, the rows are %q", got)
	}
	s.press("2/AGGREGATE-1<enter>")
	if got := s.rows("oona-"); len(got) != 5 {
		t.Errorf("case matters, or the filter of another tab does: %q", got)
	}
	s.press("1<esc>")
	if got := s.rows("enc."); len(got) != 30 {
		t.Errorf("without the filter, there are %d rows", len(got))
	}
	s.press("/q<esc>")
	if s.ended {
		t.Error("a letter of the filter ended the program")
	}
}

func TestScrolling(t *testing.T) {
	s := newSession(t, 80, 14, false) // 10 rows
	first := func(want string) {
		t.Helper()
		if got := s.rows("enc."); len(got) != 10 || got[0] != want {
			t.Errorf("the rows are %q, want 10 from %s", got, want)
		}
	}
	first("enc.2")
	s.press("<up>")
	first("enc.2")
	s.press("<down>")
	first("enc.10")
	s.press("<pgdn>")
	first("enc.9")
	s.press("<end>")
	first("enc.20")
	s.press("<down><up>")
	first("enc.19")
	if summary := s.screen()[1]; !strings.Contains(summary, "rows 20 to 29 of 30") {
		t.Errorf("the summary is %s", summary)
	}
	s.press("<pgup>")
	first("enc.9")
	s.send(tea.WindowSizeMsg{Width: 80, Height: 100})
	if got := s.rows("enc."); len(got) != 30 {
		t.Errorf("on a high terminal, %d of 30 rows are shown", len(got))
	}
	s.send(tea.WindowSizeMsg{Width: 80, Height: 14})
	s.press("<home>")
	first("enc.2")
}

// The help is closed by any key, and q and Ctrl-C end the program. Before the first
// snapshot, the screen says what it waits for.
func TestHelpAndEnd(t *testing.T) {
	s := newSession(t, 80, 24, false)
	s.press("?")
	if text := strings.Join(s.screen(), "\n"); !strings.Contains(text, "Tab, Shift+Tab") {
		t.Errorf("no help: %s", text)
	}
	s.press("3")
	if text := s.screen()[0]; !strings.Contains(text, "[1 Layers (30)]") {
		t.Errorf("the key that closed the help did more: %s", text)
	}
	s.press("<tab>")
	if text := s.screen()[0]; !strings.Contains(text, "[2 Partitions (12)]") {
		t.Errorf("after Tab: %s", text)
	}
	s.press("q")
	if !s.ended {
		t.Error("q does not end it")
	}
	s = newSession(t, 80, 24, false)
	s.press("/")
	s.send(tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl})
	if !s.ended {
		t.Error("Ctrl-C does not end it")
	}
	empty := &session{t: t, model: NewModel(false)}
	if text := empty.screen()[1]; !strings.Contains(text, "asking the bus") {
		t.Errorf("before the first snapshot: %s", text)
	}
}

func TestColours(t *testing.T) {
	plain, colourful := newSession(t, 80, 24, false), newSession(t, 80, 24, true)
	if text := strings.Join(plain.screen(), "\n"); strings.Contains(text, "\x1b") {
		t.Errorf("escape sequences without colours: %q", text)
	}
	text := strings.Join(colourful.screen(), "\n")
	if !strings.Contains(text, "\x1b[1;31mcritical") || ansi.Strip(text) != strings.Join(plain.screen(), "\n") {
		t.Errorf("with colours: %q", text)
	}
}

// Text from the bus cannot control the terminal.
func TestControlCharacters(t *testing.T) {
	s := newSession(t, 120, 40, false)
	evil := installation(time.Local)
	evil.Layers[0].Layer, evil.Layers[0].Run = "enc\x1b[2J", "run\x07\n"
	evil.Layers[0].Verdict.Reasons[0].Metric = "\x1b]0;title\x07"
	evil.Partitions[0].Owner = "a\nb\x1b[2J"
	evil.Ingests[0].Name, evil.Ingests[2].Fault = "\x1b[2J", "\x9b2J"
	evil.Faults = []string{"\x1b[2J"}
	s.send(evil)
	for _, keys := range []string{"1", "2", "3", "4"} {
		s.press(keys)
		if text := strings.Join(s.screen(), ""); strings.ContainsAny(text, "\x1b\x07\n\u009b") {
			t.Errorf("tab %s: %q", keys, text)
		}
	}
}
