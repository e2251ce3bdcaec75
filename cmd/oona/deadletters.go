package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/deadletters"
)

type deadLettersCommand struct {
	Bus    kafka.Config `embed:"" group:"Bus"`
	Prefix string       `group:"Bus" placeholder:"PREFIX" help:"Prefix of topic names."`

	List    deadLettersList    `cmd:"" help:"List the records of the side topics, each with its place, the time of its first append, the reason why it was not folded, and whether it was redriven or discarded."`
	Show    deadLettersShow    `cmd:"" help:"Show records of side topics completely: headers, frames, and whether they were redriven or discarded."`
	Redrive deadLettersRedrive `cmd:"" help:"Send records of side topics to the topic of frames again, after the checks of ingest and an optional repair. A record is sent only once, even if the command is interrupted and called again. The exit status is 1 if a selected record was not sent."`
	Discard deadLettersDiscard `cmd:"" help:"Mark records of side topics that nobody needs. They stay in their topic, and list and redrive leave them out."`
}

func defaultDeadLetters() deadLettersCommand {
	return deadLettersCommand{Prefix: oona.DefaultPrefix, Redrive: defaultRedrive()}
}

// letterFilters are the flags that select records of side topics.
type letterFilters struct {
	Topic  []string       `env:"-" group:"Which records" placeholder:"NAME" help:"Select only records of this side topic: late, quarantine, overflow, metrics.dead, raw.dead, or the whole name of any topic that ends in .dead. All flags of this group can be repeated."`
	Reason []string       `env:"-" group:"Which records" placeholder:"WORD" help:"Select only records with this reason, for example future or undecodable."`
	Origin []string       `env:"-" group:"Which records" placeholder:"TOPIC[/N]" help:"Select only records that were in this topic before, or in this partition of it."`
	OfRun  []oona.RunID   `name:"run" env:"-" group:"Which records" placeholder:"ID" help:"Select only records of this run."`
	Layer  []oona.LayerID `env:"-" group:"Which records" placeholder:"ID" help:"Select only records of this layer."`
	From   moment         `env:"-" group:"Which records" default:"beginning" placeholder:"beginning|TIME" help:"Select only records that were appended to their first topic since this time, such as 2026-11-27T18:00:00Z, or a duration ago such as 2h."`
	Until  moment         `env:"-" group:"Which records" default:"now" placeholder:"now|TIME" help:"Select only records that were appended to their first topic before this time."`
}

// mailbox is what the commands work on.
type mailbox struct {
	*deadletters.Box
	bus       bus.Bus
	topics    oona.Topics
	selection deadletters.Selection
	total     int64 // records of the selected topics
}

// open reads what was done about records, and finds out which are meant.
func (c *deadLettersCommand) open(ctx context.Context, f *letterFilters, places []string, logger *slog.Logger) (*mailbox, error) {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return nil, err
	}
	m := &mailbox{bus: kafka.New(c.Bus, logger), topics: topics}
	if m.selection, err = f.selection(topics, places, time.Now()); err != nil {
		return nil, err
	}
	ledger, err := deadletters.OpenLedger(ctx, m.bus, topics, logger)
	if err != nil {
		return nil, err
	}
	if !ledger.Found {
		logger.Warn("the topic of redrives does not exist, so what was done about records is not known; oona topics apply creates it", "topic", topics.Redrives)
	}
	m.Box = &deadletters.Box{Bus: m.bus, Ledger: ledger, Topics: topics.Sides(), Optional: []string{topics.SeedRawDead}}
	for _, topic := range m.selection.Topics {
		if !slices.Contains(m.Topics, topic) {
			m.Topics = append(m.Topics, topic)
		}
	}
	for _, topic := range m.Topics {
		if len(m.selection.Topics) > 0 && !slices.Contains(m.selection.Topics, topic) {
			continue
		}
		held, err := m.Extents(ctx, topic)
		if err != nil {
			return nil, err
		}
		for _, e := range held {
			m.total += e.End - e.Start
		}
	}
	return m, nil
}

// selection returns what is selected.
func (f *letterFilters) selection(topics oona.Topics, places []string, now time.Time) (s deadletters.Selection, err error) {
	s.Reasons, s.Runs, s.Layers = f.Reason, f.OfRun, f.Layer
	for _, name := range f.Topic {
		topic, err := sideTopic(topics, name)
		if err != nil {
			return s, err
		}
		s.Topics = append(s.Topics, topic)
	}
	for _, name := range f.Origin {
		topic, partition, found := strings.Cut(name, "/")
		if long := sideBase(topics) + topic; slices.Contains([]string{topics.SeedMetrics, topics.SeedRaw}, long) {
			topic = long
		}
		if found {
			topic += "/" + partition
		}
		s.Origins = append(s.Origins, topic)
	}
	for _, text := range places {
		p, err := deadletters.ParsePlace(text)
		if err != nil {
			return s, err
		}
		if long, err := sideTopic(topics, p.Topic); err == nil {
			p.Topic = long
		}
		s.Places = append(s.Places, p)
	}
	s.From, s.Until = f.From.instant(now), f.Until.instant(now)
	return s, nil
}

// moment is a flag for a time.
type moment struct{ bound }

// UnmarshalText accepts beginning, now, a time, or a duration ago.
func (m *moment) UnmarshalText(text []byte) error {
	err := m.bound.UnmarshalText(text)
	if err != nil || strings.HasPrefix(m.text, "offset:") {
		return fmt.Errorf("%q is not valid; give beginning, now, a time such as 2026-11-27T18:00:00Z, or a duration ago such as 2h", text)
	}
	return nil
}

// instant returns the time, or 0 if it is the beginning or the end.
func (m moment) instant(now time.Time) oona.Micros {
	if m.isAgo {
		return oona.MicrosOf(now.Add(-m.ago))
	}
	return m.at
}

// sideBase is what the names of the side topics begin with.
func sideBase(topics oona.Topics) string { return strings.TrimSuffix(topics.Late, "late") }

// sideTopic returns the name of a side topic that may be given in short.
func sideTopic(topics oona.Topics, name string) (string, error) {
	sides := topics.Sides()
	for _, topic := range []string{name, sideBase(topics) + name} {
		if slices.Contains(sides, topic) {
			return topic, nil
		}
	}
	if strings.HasSuffix(name, ".dead") {
		return name, nil
	}
	var known []string
	for _, topic := range sides {
		known = append(known, shortTopic(topics, topic))
	}
	return "", &oona.FieldError{Field: "--topic", Reason: fmt.Sprintf("is %.200q; give %s, or the whole name of a topic that ends in .dead", name, strings.Join(known, ", "))}
}

func shortTopic(topics oona.Topics, name string) string {
	return strings.TrimPrefix(name, sideBase(topics))
}

// shortPlace returns a place in a side topic as the commands accept it.
func (m *mailbox) shortPlace(p deadletters.Place) string {
	p.Topic = shortTopic(m.topics, p.Topic)
	return p.Short()
}

// found returns an error if records that were named do not exist.
func found(places []string, selected int) error {
	if len(places) > 0 && selected == 0 {
		return fmt.Errorf("%w: %s; oona dead-letters list --all shows what there is", errNoLetter, strings.Join(places, ", "))
	}
	return nil
}

var errNoLetter = errors.New("no side topic has the record")

// caller returns what identifies this call, and who makes it.
func caller(by string) (call, name string) {
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails
	if by == "" {
		by = "oona"
		if u, err := user.Current(); err == nil {
			by = u.Username
		}
	}
	return hex.EncodeToString(id[:]), by
}
