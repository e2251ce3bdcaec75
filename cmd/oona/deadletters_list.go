package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/deadletters"
)

type deadLettersList struct {
	Which letterFilters `embed:""`
	All   bool          `env:"-" help:"Also list what was redriven or discarded."`
	Limit int           `env:"-" default:"100" placeholder:"N" help:"Print at most this many records; 0 means all. The counts include all of them."`
	JSON  bool          `name:"json" env:"-" help:"Print one JSON object per record, and no counts."`
}

// listedLetter is a record of a side topic as JSON.
type listedLetter struct {
	Place        string               `json:"place"`
	From         string               `json:"from"` // where it was before
	Appended     time.Time            `json:"appended"`
	Reason       string               `json:"reason"`
	Detail       string               `json:"detail"`
	Stage        string               `json:"stage"`
	Run          oona.RunID           `json:"run_id,omitempty"`
	Layer        oona.LayerID         `json:"layer_id,omitempty"`
	State        deadletters.State    `json:"state"`
	Outcome      *deadletters.Outcome `json:"outcome,omitempty"`
	RedrivenFrom string               `json:"redriven_from,omitempty"` // it has been sent again before
}

func listLetter(l *deadletters.Letter) *listedLetter {
	out := &listedLetter{
		Place: l.Side.Short(), From: l.Origin.String(), Appended: l.Appended.Time(), Reason: l.Reason, Detail: l.Detail, Stage: l.Stage,
		Run: l.Run, Layer: l.Layer, State: l.Outcome.State, RedrivenFrom: l.Message.Metadata.Get(oona.HeaderRedrivenFrom),
	}
	if l.Outcome.State != deadletters.Open {
		o := l.Outcome
		o.Frames = nil
		out.Outcome = &o
	}
	return out
}

// Run lists.
func (d *deadLettersList) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	m, err := c.DeadLetters.open(ctx, &d.Which, nil, logger)
	if err != nil {
		return err
	}
	shown := newProgress(to.messages)
	shown.begin("reading records", m.total)
	defer shown.end()
	counts := letterCounts{}
	printed, left := 0, 0
	err = m.Each(ctx, &m.selection, shown.record, func(l *deadletters.Letter) error {
		counts.add(l)
		if !d.All && (l.Outcome.State == deadletters.Done || l.Outcome.State == deadletters.Discarded) {
			return nil
		}
		if d.Limit > 0 && printed == d.Limit {
			left++
			return nil
		}
		printed++
		shown.end()
		if d.JSON {
			return json.NewEncoder(to.out).Encode(listLetter(l))
		}
		return m.printLine(to.out, l)
	})
	shown.end()
	if err != nil {
		return err
	}
	if left > 0 {
		fmt.Fprintf(to.messages, "%s more: give --limit 0 to see all\n", plural(int64(left), "record"))
	}
	if d.JSON {
		return nil
	}
	return counts.print(to.out, m)
}

func (m *mailbox) printLine(w io.Writer, l *deadletters.Letter) error {
	state := ""
	if l.Outcome.State != deadletters.Open {
		state = "[" + string(l.Outcome.State) + "] "
	}
	of := "-"
	if l.Run != "" {
		of = visible(fmt.Sprintf("%s/%s", l.Run, l.Layer))
	}
	_, err := fmt.Fprintf(w, "%-18s %s  %-11s %s  %s%s\n", m.shortPlace(l.Side), l.Appended.Time().Format(time.RFC3339), visible(l.Reason), of, state, visible(l.Detail))
	return err
}

// visible writes what a terminal does not print as escapes. Records that were refused may
// have anything in their names.
func visible(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }) < 0 {
		return text
	}
	var out strings.Builder
	for _, r := range text {
		if unicode.IsGraphic(r) {
			out.WriteRune(r)
		} else {
			out.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return out.String()
}

// letterCounts has how many records of a topic, reason and state there are.
type letterCounts map[[3]string]int

func (c letterCounts) add(l *deadletters.Letter) {
	c[[3]string{l.Side.Topic, l.Reason, string(l.Outcome.State)}]++
}

func (c letterCounts) print(w io.Writer, m *mailbox) error {
	if len(c) == 0 {
		_, err := fmt.Fprintln(w, "No records.")
		return err
	}
	states := []deadletters.State{deadletters.Open, deadletters.Pending, deadletters.Done, deadletters.Discarded}
	heads := []any{"OPEN", "PENDING", "REDRIVEN", "DISCARDED"}
	for k := range c {
		if k[2] == string(deadletters.Unreadable) && len(states) == 4 {
			states, heads = append(states, deadletters.Unreadable), append(heads, "UNREADABLE")
		}
	}
	fmt.Fprintf(w, "%-14s %-12s"+strings.Repeat(" %10s", len(heads))+"\n", append([]any{"TOPIC", "REASON"}, heads...)...)
	keys := slices.SortedFunc(maps.Keys(c), func(a, b [3]string) int { return slices.Compare(a[:], b[:]) })
	for i, k := range keys {
		if i > 0 && keys[i-1][0] == k[0] && keys[i-1][1] == k[1] {
			continue
		}
		fmt.Fprintf(w, "%-14s %-12s", shortTopic(m.topics, k[0]), visible(k[1]))
		for _, state := range states {
			fmt.Fprintf(w, " %10d", c[[3]string{k[0], k[1], string(state)}])
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return nil
}

type deadLettersShow struct {
	Places []string `arg:"" name:"place" help:"Records: TOPIC/PARTITION/OFFSET, as list prints it, or TOPIC/PARTITION/INCARNATION/OFFSET of where the record was before."`
	JSON   bool     `name:"json" env:"-" help:"Print one JSON object per record."`
}

// shownLetter is a whole record as JSON.
type shownLetter struct {
	*listedLetter
	Key     []byte            `json:"key"`
	Headers map[string]string `json:"headers"`
	Frames  []json.RawMessage `json:"frames,omitempty"`
	Value   []byte            `json:"value,omitempty"` // if it cannot be decoded
}

// Run shows records.
func (d *deadLettersShow) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	m, err := c.DeadLetters.open(ctx, &letterFilters{}, d.Places, logger)
	if err != nil {
		return err
	}
	selected := 0
	err = m.Each(ctx, &m.selection, nil, func(l *deadletters.Letter) error {
		selected++
		line := deadletters.NewLine(l)
		whole := &shownLetter{listedLetter: listLetter(l), Key: l.Key, Headers: l.Message.Metadata, Frames: line.Frames, Value: line.Value}
		if d.JSON {
			return json.NewEncoder(to.out).Encode(whole)
		}
		return m.show(to.out, l, whole)
	})
	if err != nil {
		return err
	}
	return found(d.Places, selected)
}

func (m *mailbox) show(w io.Writer, l *deadletters.Letter, s *shownLetter) error {
	fmt.Fprintf(w, "%s\n", s.Place)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %-9s %s\n", name, visible(value))
		}
	}
	row("was", s.From)
	row("appended", s.Appended.Format(time.RFC3339Nano))
	row("reason", s.Reason+" (by "+s.Stage+")")
	row("detail", s.Detail)
	row("run", string(s.Run))
	row("layer", string(s.Layer))
	row("state", string(s.State))
	if o := s.Outcome; o != nil {
		row("", fmt.Sprintf("by %s at %s, call %s", o.By, o.At.Format(time.RFC3339), o.Call))
		row("repair", o.Repair)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		if !strings.HasPrefix(name, "oona-error-") {
			row("header", name+": "+s.Headers[name])
		}
	}
	for _, f := range s.Frames {
		row("frame", string(f))
	}
	if s.Value != nil {
		row("value", fmt.Sprintf("%d bytes that cannot be decoded, the first: % x", len(s.Value), s.Value[:min(len(s.Value), 32)]))
	}
	return nil
}
