package watch

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/morphogenetic/oona"
)

// Line describes the record in one line of text, without a line end.
func (r *Record) Line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %d/%-6d ", r.At.Local().Format("15:04:05.000"), r.Partition, r.Offset)
	if r.Side != nil {
		r.Side.line(&b)
	}
	if r.Dropped != "" {
		b.WriteString(strings.ToUpper(r.Dropped) + "  ")
	}
	if r.Begins {
		b.WriteString("NEW INCARNATION  ")
	}
	switch r.Kind {
	case kindFrame:
		r.Frame.line(&b)
	case kindRollup:
		r.Rollup.line(&b)
	case kindEvent:
		r.Event.line(&b)
	case kindRunEnd:
		r.RunEnd.line(&b)
	case kindJSON:
		b.Write(r.JSON)
	case kindTick:
		fmt.Fprintf(&b, "tick of %s, written %s", r.Tick.Worker, r.Tick.WrittenAt.Local().Format("15:04:05.000"))
	case kindConfiguration:
		r.Configuration.line(&b)
	case kindIncarnation:
		r.Incarnation.line(&b)
	case kindSetting:
		r.settingLine(&b)
	default:
		r.Undecoded.line(&b)
	}
	return Plain(b.String())
}

// Plain replaces characters that would control the terminal, or the order in which it shows others.
func Plain(text string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, text)
}

// Text returns Line. If the record is a setting whose value is text, that text follows below.
func (r *Record) Text() string {
	if r.Setting == nil || r.Setting.Text == "" {
		return r.Line()
	}
	var b strings.Builder
	b.WriteString(r.Line())
	for line := range strings.Lines(r.Setting.Text) {
		b.WriteString("\n    " + Plain(strings.TrimRight(line, "\r\n")))
	}
	return b.String()
}

func (s *side) line(b *strings.Builder) {
	fmt.Fprintf(b, "%s: %s (it was at %s/%s, offset %s", strings.ToUpper(s.Reason), s.Message, s.Topic, s.Partition, s.Offset)
	if s.Incarnation != "" {
		fmt.Fprintf(b, " of incarnation %s", s.Incarnation)
	}
	b.WriteString(")  ")
}

func (u *undecoded) line(b *strings.Builder) {
	fmt.Fprintf(b, "%d bytes: %s", u.Bytes, u.Head)
	if u.Bytes > shownHead {
		b.WriteString("...")
	}
	if u.Error != "" {
		fmt.Fprintf(b, "  (%s)", u.Error)
	}
}

func (r *Record) settingLine(b *strings.Builder) {
	fmt.Fprintf(b, "%s: ", r.Setting.Key)
	switch {
	case r.Configuration != nil:
		r.Configuration.line(b)
	case r.Incarnation != nil:
		r.Incarnation.line(b)
	case r.Undecoded != nil:
		r.Undecoded.line(b)
	case r.Setting.Deleted:
		b.WriteString("deleted")
	default:
		fmt.Fprintf(b, "%d bytes of text", len(r.Setting.Text))
	}
}

// line describes the frame, with the mean of each metric over its seeds.
func (f *frame) line(b *strings.Builder) {
	fmt.Fprintf(b, "%-10s %-10s %s#%d  step %d  %s", f.Run, f.Layer, f.Producer, f.Sequence, f.Step, seedsOf(f))
	for _, m := range f.Metrics {
		sum, n := 0.0, 0
		for _, v := range m.Values {
			if v := float64(v); !math.IsNaN(v) && !math.IsInf(v, 0) {
				sum += v
				n++
			}
		}
		if n > 0 {
			fmt.Fprintf(b, "  %s %.4g", m.Name, sum/float64(n))
		}
	}
	for _, t := range f.Tensors {
		fmt.Fprintf(b, "  %s of seed %d: %s%v", t.Name, t.Seed, t.DType, t.Shape)
		if c, ok := t.Data.(claim); ok {
			fmt.Fprintf(b, " at %s/%s", c.Bucket, c.Key)
		}
		switch s := t.Summary; {
		case t.Problem != "":
			fmt.Fprintf(b, " (%s)", t.Problem)
		case s != nil:
			fmt.Fprintf(b, " from %.4g to %.4g, mean %.4g", s.Min, s.Max, s.Mean)
		}
	}
}

// seedsOf describes how many seeds are in each state, in the order of the states.
func seedsOf(f *frame) string {
	if len(f.Seeds) == 1 {
		return fmt.Sprintf("seed %d %s", f.Seeds[0], f.States[0])
	}
	counts := make(map[string]int64)
	for _, s := range f.States {
		counts[s]++
	}
	return fmt.Sprintf("%d seeds%s", len(f.Seeds), statesOf(counts))
}

func statesOf(counts map[string]int64) string {
	var b strings.Builder
	for state := range oona.State(oona.StateCount) {
		if n := counts[state.String()]; n > 0 {
			fmt.Fprintf(&b, " %d %s", n, state)
		}
	}
	return b.String()
}

func (r *rollup) line(b *strings.Builder) {
	fmt.Fprintf(b, "%-10s %-10s %s to %s  %d frames", r.Run, r.Layer, r.Start.Local().Format("15:04:05"), r.End.Local().Format("15:04:05"), r.Frames)
	if s := r.Seeds; s != nil {
		fmt.Fprintf(b, "  %d of %d seeds active:%s", s.Active, s.Seen, statesOf(s.ByState))
	}
	if v := r.Rates; v != nil {
		if v.Speed != nil {
			fmt.Fprintf(b, "  %.4g steps/s", *v.Speed)
		}
		fmt.Fprintf(b, "  %.4g readings/s  delay %.3gs", v.Readings, v.Delay)
	}
	for _, m := range r.Metrics {
		fmt.Fprintf(b, "  %s %.4g [%.4g, %.4g]", m.Name, m.Mean, m.Min, m.Max)
	}
}

func (c *configuration) line(b *strings.Builder) {
	fmt.Fprintf(b, "configuration: generation %d, from %s", c.Generation, c.From.Format(time.RFC3339))
	for _, settings := range []map[string]any{c.Durations, c.Limits} {
		var names []string
		for name := range settings {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(b, " %s=%v", name, settings[name])
		}
	}
	fmt.Fprintf(b, " reducer=%d", c.Reducer)
	if c.Catalogue != "" {
		fmt.Fprintf(b, " catalogue=%s", c.Catalogue)
	}
	if c.Kind != "" {
		fmt.Fprintf(b, " window_kind=%s", c.Kind)
	}
}

func (n *incarnation) line(b *strings.Builder) {
	fmt.Fprintf(b, "incarnation %d begins", n.Number)
	if n.PreviousEnd != nil {
		fmt.Fprintf(b, " after one that was read up to offset %d", *n.PreviousEnd)
	}
	fmt.Fprintf(b, ": %s (written by %s at %s)", n.Reason, n.Worker, n.WrittenAt.Format(time.RFC3339))
}
