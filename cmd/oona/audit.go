package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/audit"
	"github.com/morphogenetic/oona/internal/watch"
)

type auditCommand struct {
	Bus    kafka.Config `embed:"" group:"Bus"`
	Prefix string       `group:"Bus" placeholder:"PREFIX" help:"Prefix of topic names."`

	OfRun   oona.RunID   `name:"run" env:"-" placeholder:"ID" help:"Only seeds of this run."`
	Layer   oona.LayerID `env:"-" placeholder:"ID" help:"Only seeds of this layer."`
	Seed    *oona.SeedID `env:"-" placeholder:"N" help:"Only the seed with this number."`
	From    bound        `env:"-" placeholder:"TIME" help:"Only events from this time on: a time such as 2026-11-27T18:00:00Z, or a duration ago such as 2h. What is missing before the first event that the topics have of a seed is then not reported."`
	Until   bound        `env:"-" placeholder:"TIME" help:"Only events before this time."`
	Flagged bool         `env:"-" help:"Print only seeds with a flagged fault."`
	JSON    bool         `name:"json" env:"-" help:"Print one JSON object per seed, and at the end one with the totals."`
}

func defaultAudit() auditCommand { return auditCommand{Prefix: oona.DefaultPrefix} }

// Validate is called by kong when flags, environment and file have been read.
func (c *auditCommand) Validate() error {
	now := time.Now()
	for _, b := range []struct {
		flag  string
		bound bound
	}{{"--from", c.From}, {"--until", c.Until}} {
		if _, timed := b.bound.time(now); !timed && b.bound.text != "" {
			return &oona.FieldError{Field: b.flag, Reason: fmt.Sprintf("is %s; give a time such as 2026-11-27T18:00:00Z, or a duration ago such as 2h, as it is compared with the times of events", b.bound.text)}
		}
	}
	from, begins := c.From.time(now)
	if until, ends := c.Until.time(now); begins && ends && from >= until {
		return &oona.FieldError{Field: "--until", Reason: fmt.Sprintf("is %s, which is not after --from, %s", c.Until.text, c.From.text)}
	}
	if c.Seed != nil && *c.Seed < 0 {
		return &oona.FieldError{Field: "--seed", Reason: fmt.Sprintf("is %d; seeds are numbered from 0", *c.Seed)}
	}
	return nil
}

var (
	// errFlagged is returned if something is wrong with the events.
	errFlagged = errors.New("the audit has flagged faults in the events")
	// errUnread is returned if a topic of events could not be audited.
	errUnread = errors.New("the audit is incomplete")
	// errNotAudited is returned if the audit has failed, so that nothing is known.
	errNotAudited = errors.New("the audit has failed")
)

// auditMemory is enough for audit.DefaultMemory, and for the records that are being read.
const auditMemory = audit.DefaultMemory + 384<<20

// Run audits the events. Its error says what is known of them, for the exit status.
func (c *auditCommand) Run(ctx context.Context, to streams, logger *slog.Logger) error {
	err := c.audit(ctx, to, logger)
	if err == nil || errors.Is(err, errFlagged) || errors.Is(err, errUnread) || errors.Is(err, errNothing) {
		return err
	}
	return fmt.Errorf("%w: %w", errNotAudited, err)
}

func (c *auditCommand) audit(ctx context.Context, to streams, logger *slog.Logger) error {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return err
	}
	now := time.Now()
	o := audit.Options{Topics: topics, Layer: c.Layer, Seed: oona.AnySeed}
	if c.OfRun != "" {
		o.Runs = []oona.RunID{c.OfRun}
	}
	if c.Seed != nil {
		o.Seed = *c.Seed
	}
	o.From, _ = c.From.time(now)
	o.Until, _ = c.Until.time(now)
	show := printLife
	if c.JSON {
		show = encodeLife
	}
	// Otherwise the collector would let the heap grow to twice of what is kept.
	if before := debug.SetMemoryLimit(-1); before > auditMemory {
		debug.SetMemoryLimit(auditMemory)
		defer debug.SetMemoryLimit(before)
	}
	found, err := audit.Run(ctx, kafka.New(c.Bus, logger), o, func(l *audit.Life) error {
		if c.Flagged && !l.Flagged() {
			return nil
		}
		return show(to.out, l)
	})
	if err != nil {
		return err
	}
	if c.JSON {
		err = encodeSummary(to.out, found)
	} else {
		err = printSummary(to.out, found, !c.Flagged)
	}
	switch {
	case err != nil:
		return err
	case len(found.Unread) > 0:
		return unread(found)
	case found.Flagged():
		return errFlagged
	case found.Events == 0 && len(found.Ends) == 0 && c.selects():
		return fmt.Errorf("%w: the topics of events have none of these; names are case-sensitive, and oona audit without flags prints all there are", errNothing)
	}
	return nil
}

// unread returns errUnread, with the topics that were not audited.
func unread(found *audit.Summary) error {
	flagged := "nothing is flagged"
	if found.Flagged() {
		flagged = "something is flagged, but gaps may be events in the topics that were not read"
	}
	err := fmt.Errorf("%w: in the topics that were read, %s; not read: %w", errUnread, flagged, found.Unread[0].Err)
	for _, u := range found.Unread[1:] {
		err = fmt.Errorf("%w; %w", err, u.Err)
	}
	return err
}

// toRead says what to do so that a topic can be read.
func toRead(u audit.Unread) string {
	if u.Reason == "denied" {
		return "grant READ on it to the user of this program"
	}
	return "run oona topics apply"
}

// selects reports whether only some seeds are asked for.
func (c *auditCommand) selects() bool { return c.OfRun != "" || c.Layer != "" || c.Seed != nil }

// printLife writes a life as lines for people. They have all that encodeLife writes.
func printLife(w io.Writer, l *audit.Life) error {
	var b strings.Builder
	fmt.Fprintf(&b, "run %s, layer %s, seed %d\n", l.Run, l.Layer, l.Seed)
	for _, e := range l.Events {
		for _, f := range e.Faults {
			fmt.Fprintf(&b, "       ! %s: %s\n", f.Kind, f.Detail)
		}
		fmt.Fprintf(&b, "  %4d  %s  step %d  %s -> %s", e.Sequence, e.At.Time().Format("2006-01-02T15:04:05.000000Z"), e.Step, e.From, e.To)
		if e.Mark != oona.EventNormal {
			fmt.Fprintf(&b, "  %s", e.Mark)
		}
		if e.Reason != "" {
			fmt.Fprintf(&b, "  %s", printable(e.Reason))
		}
		for _, name := range slices.Sorted(maps.Keys(e.Evidence)) {
			fmt.Fprintf(&b, "  %s=%v", name, e.Evidence[name])
		}
		for _, more := range moreOf(&e.SeedEvent) {
			fmt.Fprintf(&b, "  %s", more)
		}
		fmt.Fprintf(&b, "  (%s/%d, offset %d", e.Record.Topic, e.Record.Partition, e.Record.Offset)
		if e.Repeats > 0 {
			fmt.Fprintf(&b, ", repeats: %d", e.Repeats)
		}
		b.WriteString(")\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// moreOf returns those fields of an event that most events do not have.
func moreOf(e *oona.SeedEvent) (all []string) {
	for _, text := range []struct{ what, value string }{
		{"blueprint", e.Blueprint}, {"command", e.Command}, {"actor", e.Actor}, {"node", e.Node}, {"timeline", string(e.Timeline)}, {"producer", string(e.Producer)},
	} {
		if text.value != "" {
			all = append(all, text.what+" "+text.value)
		}
	}
	for _, number := range []struct {
		what  string
		value int64
	}{
		{"producer epoch", e.ProducerEpoch}, {"session", e.Session}, {"epoch", e.Epoch}, {"journal index", e.JournalIndex},
		{"trigger", e.TriggerPosition}, {"trigger index", int64(e.TriggerIndex)}, {"incarnation", int64(e.Incarnation)},
	} {
		if number.value != 0 {
			all = append(all, fmt.Sprintf("%s %d", number.what, number.value))
		}
	}
	return all
}

// printable returns a text of a client, in quotes if it has something that terminals interpret.
func printable(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

func printSummary(w io.Writer, s *audit.Summary, ends bool) error {
	var b strings.Builder
	if ends {
		printEnds(&b, s)
	}
	for _, f := range s.Other {
		fmt.Fprintf(&b, "! %s: %s\n", f.Kind, printable(f.Detail))
	}
	for _, u := range s.Unread {
		fmt.Fprintf(&b, "The topic %s was not read (%s), so gaps may be its events; %s.\n", u.Topic, u.Reason, toRead(u))
	}
	if s.Deleted {
		b.WriteString("The oldest records of the topics were deleted, so gaps may be events that were deleted.\n")
	}
	if s.Fewer > 0 {
		fmt.Fprintf(&b, "%d records are in the partitions that were right before partitions were added to their topics.\n", s.Fewer)
	}
	fmt.Fprintf(&b, "%d events of %d seeds, repeats: %d, flagged:", s.Events, s.Seeds, s.Repeats)
	if !s.Flagged() {
		b.WriteString(" none")
	}
	for i, kind := range slices.Sorted(maps.Keys(s.Faults)) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s %d", kind, s.Faults[kind])
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// printEnds writes how the runs have ended.
func printEnds(b *strings.Builder, s *audit.Summary) {
	if s.MoreEnds {
		fmt.Fprintf(b, "Only the %d runs that ended last:\n", len(s.Ends))
	}
	for _, e := range s.Ends {
		fmt.Fprintf(b, "run %s ended at %s, %s, step %d", e.Run, e.At.Time().Format("2006-01-02T15:04:05.000000Z"), e.Outcome, e.Step)
		if e.Reason != "" {
			fmt.Fprintf(b, "  %s", printable(e.Reason))
		}
		for _, more := range moreOf(&oona.SeedEvent{Timeline: e.Timeline, Producer: e.Producer, ProducerEpoch: e.ProducerEpoch}) {
			fmt.Fprintf(b, "  %s", more)
		}
		fmt.Fprintf(b, "  (%s/%d, offset %d)\n", e.Record.Topic, e.Record.Partition, e.Record.Offset)
	}
	if u := s.NoEnds; u != nil {
		fmt.Fprintf(b, "Whether runs have ended is not known, as the topic %s was not read (%s); %s.\n", u.Topic, u.Reason, toRead(*u))
	}
}

// encodedEnd is the JSON form of the end of a run.
type encodedEnd struct {
	*watch.RunEnd
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

func encodeSummary(w io.Writer, s *audit.Summary) error {
	out := struct {
		*audit.Summary
		Ends []encodedEnd `json:"run_ends,omitempty"`
	}{Summary: s}
	for i := range s.Ends {
		e := &s.Ends[i]
		out.Ends = append(out.Ends, encodedEnd{watch.RunEndOf(&e.RunEnd), e.Record.Topic, e.Record.Partition, e.Record.Offset})
	}
	return json.NewEncoder(w).Encode(out)
}

// encodedLife and encodedEvent are the JSON form of a life.
type (
	encodedLife struct {
		Run    oona.RunID     `json:"run_id"`
		Layer  oona.LayerID   `json:"layer_id"`
		Seed   oona.SeedID    `json:"seed_id"`
		Events []encodedEvent `json:"events"`
	}
	encodedEvent struct {
		*watch.Event
		Topic     string        `json:"topic"`
		Partition int32         `json:"partition"`
		Offset    int64         `json:"offset"`
		Repeats   int           `json:"repeats,omitempty"`
		Faults    []audit.Fault `json:"faults,omitempty"`
	}
)

func encodeLife(w io.Writer, l *audit.Life) error {
	out := encodedLife{Run: l.Run, Layer: l.Layer, Seed: l.Seed}
	for _, e := range l.Events {
		out.Events = append(out.Events, encodedEvent{watch.EventOf(&e.SeedEvent), e.Record.Topic, e.Record.Partition, e.Record.Offset, e.Repeats, e.Faults})
	}
	return json.NewEncoder(w).Encode(out)
}
