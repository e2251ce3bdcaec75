package main

import (
	"fmt"
	"io"
	"time"
)

// progress shows on a terminal how far a long task has come. Elsewhere it shows nothing.
type progress struct {
	to    io.Writer // nil: not a terminal
	size  func() (columns, rows int)
	what  string
	total int64
	done  int64
	began time.Time
	shown time.Time
}

// progressInterval is how often the line changes.
const progressInterval = 200 * time.Millisecond

func newProgress(to io.Writer) *progress {
	p := &progress{size: terminalSize(to)}
	if p.size != nil {
		p.to = to
	}
	return p
}

func (p *progress) begin(what string, total int64) {
	p.what, p.total, p.done, p.began = what, total, 0, time.Now()
}

func (p *progress) record() { p.add(1) }

func (p *progress) add(n int) {
	p.done += int64(n)
	if p.to == nil || time.Since(p.shown) < progressInterval {
		return
	}
	p.shown = time.Now()
	columns, _ := p.size()
	fmt.Fprintf(p.to, "\r\x1b[K%.*s", columns-1, p.line(time.Since(p.began)))
}

func (p *progress) line(took time.Duration) string {
	text := fmt.Sprintf("%s: %d", p.what, p.done)
	if p.total > 0 {
		text += fmt.Sprintf(" of %d", p.total)
	}
	rate := float64(p.done) / took.Seconds()
	text += fmt.Sprintf(", %.0f/s", rate)
	if left := p.total - p.done; left > 0 && p.done > 0 {
		text += fmt.Sprintf(", %s left", time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second))
	}
	return text
}

// end removes the line.
func (p *progress) end() {
	if p.to != nil && !p.shown.IsZero() {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}
