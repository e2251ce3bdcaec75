package top

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/morphogenetic/oona/internal/watch"
)

// Model is the state of the screen. It shows the last Snapshot that it has received.
type Model struct {
	snapshot Snapshot
	tabs     []tab
	views    []view // one for each tab
	active   int    // index of the tab that is shown
	typing   bool   // whether the user is typing the filter
	help     bool
	width    int
	height   int
	color    bool
}

// view has the settings of a tab.
type view struct {
	filter  string
	sort    int
	reverse bool
	first   int // index of the first row on the screen
}

// NewModel returns a Model that has no Snapshot yet.
func NewModel(color bool) Model {
	all := tabs()
	return Model{tabs: all, views: make([]view, len(all)), width: 80, height: 24, color: color}
}

// Init implements tea.Model.
func (m Model) Init() tea.Cmd { return nil }

// Update implements tea.Model.
func (m Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case Snapshot:
		m.snapshot = msg
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m.key(msg)
	}
	return m, nil
}

func (m Model) key(msg tea.KeyPressMsg) (Model, tea.Cmd) {
	// The caller's Model has the same array, so it must be copied.
	m.views = append([]view{}, m.views...)
	v := &m.views[m.active]
	key := msg.String()
	if key == "ctrl+c" {
		return m, tea.Quit
	}
	if m.typing {
		m.typing = v.typed(msg)
		return m, nil
	}
	if m.help {
		m.help = false
		if key != "q" {
			return m, nil
		}
	}
	page := max(1, m.rows()-1)
	switch key {
	case "q":
		return m, tea.Quit
	case "?", "h":
		m.help = true
	case "/":
		m.typing, v.first = true, 0
	case "esc":
		v.filter, v.first = "", 0
	case "s":
		v.sort, v.first = m.tabs[m.active].next(v.sort), 0
	case "r":
		v.reverse, v.first = !v.reverse, 0
	case "tab", "right", "l":
		m.active = (m.active + 1) % len(m.tabs)
	case "shift+tab", "left":
		m.active = (m.active + len(m.tabs) - 1) % len(m.tabs)
	case "1", "2", "3", "4":
		m.active = int(key[0] - '1')
	case "down", "j":
		v.first++
	case "up", "k":
		v.first--
	case "pgdown", "space":
		v.first += page
	case "pgup", "b":
		v.first -= page
	case "home", "g":
		v.first = 0
	case "end", "G":
		v.first = wide
	}
	return m.scrolled(), nil
}

// typed handles a key while the user is typing the filter. It returns false when the filter is complete.
func (v *view) typed(msg tea.KeyPressMsg) bool {
	switch key := msg.String(); {
	case key == "enter":
		return false
	case key == "esc":
		v.filter = ""
		return false
	case key == "backspace":
		runes := []rune(v.filter)
		v.filter = string(runes[:max(0, len(runes)-1)])
	case msg.Text != "":
		v.filter += msg.Text
	}
	return true
}

// scrolled returns the Model with the index of the first row limited to the rows that exist.
func (m Model) scrolled() Model {
	v := &m.views[m.active]
	_, lines := m.tabs[m.active].lines(m.snapshot, m.look())
	v.first = max(0, min(v.first, len(lines)-m.rows()))
	return m
}

func (m Model) look() look {
	v := m.views[m.active]
	return look{width: m.width, filter: v.filter, sort: v.sort, reverse: v.reverse, color: m.color}
}

// above is the number of lines above the rows: the tabs, the summary and the header.
const above = 3

// rows returns the number of rows for which there is room.
func (m Model) rows() int { return max(0, m.height-above-len(m.foot())) }

// View implements tea.Model.
func (m Model) View() tea.View {
	v := tea.NewView(strings.Join(m.screen(), "\n"))
	v.AltScreen = true
	return v
}

// screen returns the lines on the terminal: at most as many as it has, and none wider.
func (m Model) screen() []string {
	var lines []string
	if m.help {
		lines = strings.Split(help, "\n")
	} else {
		header, rows := m.tabs[m.active].lines(m.snapshot, m.look())
		first := max(0, min(m.views[m.active].first, len(rows)-m.rows()))
		shown := rows[first:min(len(rows), first+m.rows())]
		lines = append(lines, m.bar(), m.summary(len(rows), first, len(shown)), m.bold(header))
		lines = append(lines, shown...)
		for len(lines) < above+m.rows() {
			lines = append(lines, "")
		}
		lines = append(lines, m.foot()...)
	}
	lines = lines[:min(len(lines), m.height)]
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, m.width, mark)
	}
	return lines
}

// bar returns the names of the tabs, and their numbers of rows if there is room. The tab that is shown
// is in brackets.
func (m Model) bar() string {
	var counted, names []string
	for i, t := range m.tabs {
		name := fmt.Sprintf("%d %s", i+1, t.name())
		long := fmt.Sprintf("%s (%d)", name, t.count(m.snapshot))
		if i == m.active {
			name, long = m.bold("["+name+"]"), m.bold("["+long+"]")
		}
		names, counted = append(names, name), append(counted, long)
	}
	if bar := strings.Join(counted, gap); ansi.StringWidth(bar) <= m.width {
		return bar
	}
	return strings.Join(names, gap)
}

func (m Model) bold(text string) string {
	if !m.color {
		return text
	}
	return "\x1b[1m" + text + "\x1b[m"
}

// summary describes which rows of the tab are shown.
func (m Model) summary(rows, first, shown int) string {
	switch {
	case m.snapshot.At.IsZero():
		return "asking the bus ..."
	case m.typing:
		return "filter: " + watch.Plain(m.views[m.active].filter) + "_  (Enter keeps it, Esc removes it)"
	}
	parts := []string{m.snapshot.At.Local().Format("15:04:05")}
	if m.active == 0 {
		if levels := watch.Levels(m.snapshot.Layers); levels != "" {
			parts = append(parts, levels)
		}
		if m.snapshot.Reading {
			parts = append(parts, "reading older rollups")
		}
	}
	if filter := m.views[m.active].filter; filter != "" {
		parts = append(parts, fmt.Sprintf("filter %q: %d of %d", filter, rows, m.tabs[m.active].count(m.snapshot)))
	}
	if shown < rows {
		parts = append(parts, fmt.Sprintf("rows %d to %d of %d", first+1, first+shown, rows))
	}
	return strings.Join(parts, gap)
}

// mostFaults is the maximum number of lines for faults.
const mostFaults = 3

// foot returns the lines at the bottom: the faults, and the keys.
func (m Model) foot() (lines []string) {
	if len(m.snapshot.Faults) > 0 {
		text := watch.Plain(strings.Join(m.snapshot.Faults, "; "))
		lines = strings.Split(ansi.Wordwrap(text, m.width, ""), "\n")
		lines = lines[:min(len(lines), mostFaults, max(0, m.height-above-1))]
	}
	for i := range lines {
		if m.color {
			lines[i] = "\x1b[31m" + lines[i] + "\x1b[m"
		}
	}
	return append(lines, "1-4: tabs  /: filter  s: sort  r: reverse  ?: help  q: quit")
}

const help = `Keys
  1 2 3 4, Tab, Shift+Tab   layers, partitions, side topics, ingests
  Up, Down, PgUp, PgDn      scroll; also k, j, b and Space
  Home, End                 the first rows, the last rows
  /                         show rows with a text; Enter ends it, Esc removes it
  s                         sort by the next column; after the last, worst first
  r                         reverse the order
  q, Ctrl-C                 quit

Layers: the verdict and for how long, seeds by state, the worst reason. States:
  . dormant  g germinated  T training  G grafting  S stabilization
  E evaluating  f fine tuning  F fossilized  x culled  c cancelled
  r rolled back
Partitions: LAG is the number of records that the aggregators have not yet
  read and committed, SECONDS the age of the last one that they have.
Ingests: their names come from a sample of the last frames. ~ is an estimate.
  With --worker URL, the numbers of that ingest are read from its metrics.

Any key closes this help.`
