package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/schemas/avro"
)

// terminal is a pseudo-terminal on which a command runs, and what it shows.
type terminal struct {
	t   *testing.T
	pty *os.File
	tty *os.File

	mu     sync.Mutex
	screen *vt.Emulator
	text   strings.Builder // what the command has written
}

func newTerminal(t *testing.T, columns, rows int) *terminal {
	t.Helper()
	t.Setenv("TERM", "xterm-256color")
	t.Setenv("NO_COLOR", "")
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, pty: master, tty: tty, screen: vt.NewEmulator(columns, rows)}
	term.resize(columns, rows)
	var copying sync.WaitGroup
	copying.Go(term.show)
	copying.Go(func() { _, _ = io.Copy(master, term.screen) }) // its answers to questions
	t.Cleanup(func() {
		_ = tty.Close()                                 // ends show
		_ = term.screen.InputPipe().(io.Closer).Close() // Close has a race with Read
		copying.Wait()
		_ = master.Close()
	})
	return term
}

// show shows what the command writes.
func (term *terminal) show() {
	buffer := make([]byte, 1<<16)
	for {
		n, err := term.pty.Read(buffer)
		if err != nil {
			return
		}
		term.mu.Lock()
		term.text.Write(buffer[:n])
		_, _ = term.screen.Write(buffer[:n])
		term.mu.Unlock()
	}
}

// resize changes the size, and tells the process: a terminal that controls it would.
func (term *terminal) resize(columns, rows int) {
	term.t.Helper()
	term.mu.Lock()
	term.screen.Resize(columns, rows)
	term.mu.Unlock()
	if err := pty.Setsize(term.pty, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}); err != nil {
		term.t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		term.t.Fatal(err)
	}
}

// shown returns what the terminal shows.
func (term *terminal) shown() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.screen.String()
}

// written returns what the command has written.
func (term *terminal) written() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.text.String()
}

// wait waits until the terminal shows a text.
func (term *terminal) wait(pattern string) {
	term.t.Helper()
	term.waitFor(pattern, regexp.MustCompile(pattern).MatchString)
}

// waitFor waits until what the terminal shows is right. It may see a part of a drawing.
func (term *terminal) waitFor(what string, right func(text string) bool) {
	term.t.Helper()
	for deadline := time.Now().Add(hopeless); !right(term.shown()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			term.t.Fatalf("%s is not shown:\n%s\nwritten: %q", what, term.shown(), term.written())
		}
	}
}

func (term *terminal) press(keys string) {
	term.t.Helper()
	if _, err := term.pty.WriteString(keys); err != nil {
		term.t.Fatal(err)
	}
}

// start runs a command on the terminal. The function that it returns waits for the status.
func (term *terminal) start(ctx context.Context, args ...string) (wait func() int) {
	status := make(chan int, 1)
	go func() { status <- newGrammar().execute(ctx, args, streams{term.tty, term.tty, term.tty}) }()
	return func() int {
		select {
		case s := <-status:
			return s
		case <-time.After(hopeless):
			term.t.Fatalf("the command does not end: %q", term.written())
			return 0
		}
	}
}

// rollups publishes the health of layers enc.0 to enc.N, in windows that end now.
func (w *watched) rollups(layers int) {
	w.t.Helper()
	end := oona.Micros(time.Now().UnixMicro())
	for n := range layers {
		r := &oona.Rollup{
			Run: "01RUN", Layer: oona.LayerID(fmt.Sprintf("enc.%d", n)), Start: end - 10e6, End: end, Trigger: oona.Trigger{Offset: int64(n)}, Frames: 25,
			Seeds:   oona.SeedCensus{Seen: 4, Active: 1, ByState: [oona.StateCount]int64{oona.Dormant: 3, oona.Training: 1}},
			Metrics: []oona.MetricSummary{{Name: "gradient_norm", Count: 1, Mean: 0.25}},
		}
		r.Hash = r.ContentHash()
		w.publish(w.topics.LayerHealth, avro.AppendRollup(nil, r))
	}
}

// oona top on a terminal: it takes keys, follows the size, and leaves the terminal as it was.
func TestTopOnATerminal(t *testing.T) {
	w := newWatched(t)
	w.rollups(30)
	term := newTerminal(t, 80, 24)
	if _, err := term.tty.WriteString("$ oona top\r\n"); err != nil {
		t.Fatal(err)
	}
	wait := term.start(t.Context(), "top", "--brokers", w.brokers, "--interval", "200ms")
	term.wait(`\[1 Layers \(30\)\]`)
	if text := term.shown(); strings.Contains(text, "$ oona top") {
		t.Errorf("it is not on a screen of its own:\n%s", text)
	}
	term.wait(`rows 1 to 17 of 30`) // below it is a fault: no aggregator
	term.wait(`(?m)^01RUN  enc\.2 +learning  \.3 T1 +2\.50  gradient_norm 0\.25 *$`)
	term.press("2")
	term.wait(`(?m)^ +0 +- +- .*nobody *$`)
	term.press("1/enc.29\r")
	term.wait(`filter "enc.29": 1 of 30`)
	term.resize(120, 10)
	wrapped := regexp.MustCompile(`give the --group of *\n`)
	term.waitFor("the whole after a resize", func(text string) bool {
		lines := strings.Split(text, "\n")
		return wrapped.MatchString(text) && len(lines) == 10 && strings.HasPrefix(lines[9], "1-4: tabs") && strings.HasPrefix(lines[3], "01RUN  enc.29")
	})
	term.press("?")
	term.wait(`Shift\+Tab`)
	term.press("q")
	if status := wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	term.wait(`^\$ oona top *\n`)
}

// The context ends it as q does: SIGTERM.
func TestTopIsEndedOnATerminal(t *testing.T) {
	w := newWatched(t)
	term := newTerminal(t, 80, 24)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := term.start(ctx, "top", "--brokers", w.brokers, "--interval", "200ms")
	term.wait(`\[1 Layers`)
	cancel()
	if status := wait(); status != 0 {
		t.Errorf("status %d: %q", status, term.written())
	}
}

// oona watch on a terminal redraws its table in place. When the size changes, it does so
// at once, and leaves nothing of the old table. It never scrolls.
func TestWatchOnATerminal(t *testing.T) {
	w := newWatched(t)
	w.rollups(30)
	term := newTerminal(t, 80, 12)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := term.start(ctx, "watch", "--brokers", w.brokers, "--from", "beginning")
	term.wait(`22 more layers: 22 learning`) // of 11 lines: 1 legend, 8 layers, this, 1 status
	for _, size := range []struct{ columns, rows, more int }{{100, 20, 14}, {50, 9, 25}, {51, 30, 4}, {80, 40, 0}} {
		term.resize(size.columns, size.rows)
		more := fmt.Sprintf("%d more layers", size.more)
		if size.more == 0 {
			more = "enc.29"
		}
		term.waitFor(fmt.Sprintf("the whole at %v", size), func(text string) bool {
			lines := strings.Split(strings.TrimRight(text, " \n"), "\n")
			return strings.HasPrefix(lines[0], ". dormant  T training") && strings.Contains(text, more) &&
				strings.Count(text, "learning") == 30-size.more+min(1, size.more) && len(lines) == min(size.rows-1, 32)
		})
	}
	term.mu.Lock()
	if n := term.screen.ScrollbackLen(); n > 0 {
		t.Errorf("%d lines were scrolled away", n)
	}
	term.mu.Unlock()
	if text := term.written(); !strings.Contains(text, "\x1b[2mlearning") {
		t.Errorf("no colours on a terminal: %q", text)
	}
	cancel()
	if status := wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// Lines of events are cut to the width of the terminal, and are whole elsewhere. Their texts can
// neither control the terminal nor reverse the order of other text.
func TestWatchEventsOnATerminal(t *testing.T) {
	w := newWatched(t)
	e := oona.SeedEvent{Run: "r", Layer: "enc.0", At: 1_790_000_000_000_000, To: oona.Germinated, Reason: "\x1b[2J\u202e" + strings.Repeat("w\u4f60", 500), Evidence: map[string]float64{"gain": 0.25}}
	topic := w.topics.Event(&e)
	if _, err := kafka.New(kafka.Config{Brokers: []string{w.brokers}, ClientID: "test"}, nil).Apply(t.Context(), w.topics.EventSpecs(1)); err != nil {
		t.Fatal(err)
	}
	w.publish(topic, avro.AppendEvent(nil, &e))
	args := []string{"watch", topic, "--brokers", w.brokers, "--until", "now"}
	term := newTerminal(t, 100, 10)
	if status := term.start(t.Context(), args...)(); status != 0 {
		t.Fatalf("status %d: %q", status, term.written())
	}
	term.wait(`\x{2026}`)
	lines := strings.Split(strings.TrimRight(term.written(), "\r\n"), "\r\n")
	if width := ansi.StringWidth(lines[0]); len(lines) != 1 || width < 99 || width > 100 || strings.ContainsAny(lines[0], "\x1b\u202e") {
		t.Errorf("%d lines, the first of %d columns: %q", len(lines), width, lines)
	}
	if status, out, messages := run(t, append(args, "--table")...); status != 0 || !strings.HasSuffix(out, "w\u4f60  gain=0.25\n") || strings.ContainsAny(out, "\x1b\u202e") {
		t.Errorf("in a pipe: status %d, %q, %s", status, out, messages)
	}
}

// Without a terminal, or where the user wants no colours, or on a terminal that cannot move
// the cursor, there are no escape sequences where they are not wanted.
func TestTerminalsWithoutColours(t *testing.T) {
	term := newTerminal(t, 80, 24)
	look := func() (size, color bool) {
		screen, closed := openScreen(term.tty)
		closed()
		return screen.Size != nil, screen.Colours
	}
	if size, color := look(); !size || !color {
		t.Errorf("on a terminal: size %t, colours %t", size, color)
	}
	t.Setenv("NO_COLOR", "1")
	if size, color := look(); !size || color {
		t.Errorf("with NO_COLOR: size %t, colours %t", size, color)
	}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	if size, color := look(); size || color {
		t.Errorf("on a dumb terminal: size %t, colours %t", size, color)
	}
	w := newWatched(t)
	w.rollups(3)
	status, out, messages := run(t, "top", "--brokers", w.brokers, "--interval", "200ms", "--once")
	if status != 0 || strings.Contains(out, "\x1b") || strings.Count(out, "\nlayer ") != 3 || !strings.Contains(out, "\nfault: partitions: group oona-aggregate has no members") {
		t.Errorf("in a pipe: status %d, %q, %q", status, out, messages)
	}
	status, out, messages = run(t, "top", "--brokers", w.brokers, "--interval", "200ms", "--once", "--json", "--run", "other")
	if status != 0 || !strings.Contains(out, `"layers":[],"partitions":[{"partition":0,`) {
		t.Errorf("as JSON: status %d, %q, %q", status, out, messages)
	}
}

// Flags of oona top that cannot be right are refused.
func TestTopFlags(t *testing.T) {
	for _, c := range []struct{ flag, want string }{
		{"--interval=1ms", "--interval"}, {"--lookback=-1s", "--lookback"}, {"--group=", "--group"},
		{"--worker=localhost:9101", "--worker"}, {"--worker=http://me:secret@host", "--worker"},
	} {
		status, _, messages := run(t, "top", c.flag)
		if status != exitUsage || !strings.Contains(messages, c.want) || strings.Contains(messages, "secret") {
			t.Errorf("%s: status %d, %s", c.flag, status, messages)
		}
	}
}
