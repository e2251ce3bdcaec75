package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/history"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

type windowsCommand struct {
	Bus    kafka.Config `embed:"" group:"Bus"`
	Prefix string       `group:"Bus" placeholder:"PREFIX" help:"Prefix of topic names."`
	Group  string       `group:"Bus" placeholder:"NAME" help:"Consumer group of the aggregators. Its commits hold configurations that retention has deleted from the log, and the aggregators' own settings if the log has no configuration. Empty: commits are not read."`

	Show  showWindows  `cmd:"" help:"Print for each partition the window configurations in the group's commit and in the log, each with the hash of its catalogue, and the incarnations of the log. It reads the whole log."`
	Apply applyWindows `cmd:"" help:"Write a window configuration into the log of every partition. Settings that you do not give keep the values of the newest configuration, which is looked for in the log and in the group's commits. It reads the whole log."`
}

func defaultWindows() windowsCommand {
	return windowsCommand{Prefix: oona.DefaultPrefix, Group: aggregate.DefaultGroup}
}

// history returns the history of the seed-metrics topic, up to the ends of its logs.
func (c *windowsCommand) history(ctx context.Context, logger *slog.Logger) (*history.History, error) {
	h, err := c.open(ctx, logger)
	if err != nil {
		return nil, err
	}
	return h, h.ReadOn(ctx)
}

// installation returns what an examination is about.
func (c *windowsCommand) installation(logger *slog.Logger) (history.Installation, error) {
	topics, err := oona.NewTopics(c.Prefix)
	return history.Installation{Bus: kafka.New(c.Bus, logger), Topics: topics, Group: c.Group, Settle: c.Bus.SettleTime(), Logger: logger}, err
}

// restore corrects the settings topic from a history.
func (c *windowsCommand) restore(ctx context.Context, h *history.History, w io.Writer, logger *slog.Logger) error {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return err
	}
	kept, err := openShelf(ctx, h.Bus, topics, logger)
	if err != nil {
		return err
	}
	corrections := h.Corrections(kept.held)
	for _, p := range h.Partitions {
		for _, c := range corrections {
			if c.Partition == p.Number {
				fmt.Fprintf(w, "partition %d: the log has %s, but the settings topic had %s; the settings topic is corrected\n", c.Partition, c.Has, c.Had)
			}
		}
		if p.Unknown != nil {
			fmt.Fprintf(w, "partition %d: its configuration is not restored, as it is not known which one holds: %s\n", p.Number, p.Unknown)
		}
	}
	for _, lost := range h.LostCatalogues(kept.held) {
		fmt.Fprintln(w, lost)
	}
	return h.Correct(ctx, topics, corrections)
}

// open returns the history before the logs are read.
func (c *windowsCommand) open(ctx context.Context, logger *slog.Logger) (*history.History, error) {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return nil, err
	}
	return history.Open(ctx, kafka.New(c.Bus, logger), topics.SeedMetrics, c.Group)
}

type showWindows struct {
	JSON    bool `name:"json" help:"Print JSON."`
	Restore bool `env:"-" help:"Write the newest configuration and the incarnation of each partition into the settings topic if they are missing or wrong there. They are taken from the commits and the logs. Catalogues cannot be restored in this way: those that are missing are listed."`
}

func (s *showWindows) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	h, err := c.Windows.history(ctx, logger)
	if err != nil {
		return err
	}
	if s.Restore {
		if err := c.Windows.restore(ctx, h, to.messages, logger); err != nil {
			return err
		}
	}
	if s.JSON {
		return writeJSON(to.out, shownOf(h))
	}
	for _, p := range h.Partitions {
		printPartition(to.out, p, h.Group)
	}
	return nil
}

func printPartition(w io.Writer, p *history.Partition, group string) {
	fmt.Fprintf(w, "partition %d, offsets %d to %d\n", p.Number, p.Start, p.Next)
	if n := p.Engine.Incarnation(); n != 0 {
		fmt.Fprintf(w, "  incarnation %d%s\n", n, begun(p, time.Now()))
	}
	if p.Unknown != nil {
		fmt.Fprintf(w, "  it is not known which configuration holds: %s\n", p.Unknown)
	}
	list := func(c windows.Configuration) {
		fmt.Fprint(w, "   ")
		for _, s := range allOf(c.Config) {
			fmt.Fprintf(w, " %s=%v", s.name, s.value)
		}
		fmt.Fprintln(w)
	}
	for _, c := range p.InReach {
		fmt.Fprintf(w, "  commit of %s: %s\n", group, history.Standing(c))
		list(c)
	}
	for _, f := range p.Found {
		fmt.Fprintf(w, "  offset %d, appended %s: %s\n", f.Offset, f.AppendedAt.Time().Format(time.RFC3339), f.Says)
		if f.Config.Generation > 0 {
			list(f.Configuration)
		}
	}
}

// begun returns in words when the incarnation of the log began. It takes the time from
// the record, or else from the number, which usually is this time.
func begun(p *history.Partition, now time.Time) string {
	for _, f := range p.Found {
		if f.Incarnation != nil && f.Incarnation.Number == p.Engine.Incarnation() {
			return ", begun at " + f.Incarnation.WrittenAt.Time().Format(time.RFC3339)
		}
	}
	if at := oona.Micros(p.Engine.Incarnation()).Time(); !at.After(now) {
		return ", begun at about " + at.Format(time.RFC3339)
	}
	return ""
}

// shownPartition is what --json prints for a partition.
type shownPartition struct {
	Partition      int32                `json:"partition"`
	Start          int64                `json:"start"`
	Incarnation    oona.Incarnation     `json:"incarnation"` // of the log; may be 0
	End            int64                `json:"end"`
	Unknown        string               `json:"unknown,omitempty"` // why it is not known which configuration holds
	Committed      []shownInReach       `json:"committed"`
	Configurations []shownConfiguration `json:"configurations"`
	Incarnations   []shownIncarnation   `json:"incarnations"`
}

// shownIncarnation is the start of an incarnation in the log.
type shownIncarnation struct {
	Offset      int64            `json:"offset"`
	AppendedAt  time.Time        `json:"appended_at"`
	Number      oona.Incarnation `json:"number"`
	PreviousEnd int64            `json:"previous_end"`
	Reason      string           `json:"reason"`
	Worker      string           `json:"worker"`
	Holds       bool             `json:"holds"`
	Detail      string           `json:"detail"`
}

// shownInReach is a configuration in a commit. From is omitted if it holds from the
// beginning of the log.
type shownInReach struct {
	Generation int32          `json:"generation"`
	From       time.Time      `json:"from,omitzero"`
	Windows    map[string]any `json:"windows"`
}

// shownConfiguration is a configuration in the log. Windows is nil for a dead letter.
type shownConfiguration struct {
	Offset     int64          `json:"offset"`
	AppendedAt time.Time      `json:"appended_at"`
	Generation int32          `json:"generation"`
	From       time.Time      `json:"from"`
	Holds      bool           `json:"holds"`
	Detail     string         `json:"detail"`
	Windows    map[string]any `json:"windows"`
}

func shownOf(h *history.History) []shownPartition {
	all := make([]shownPartition, 0, len(h.Partitions))
	for _, p := range h.Partitions {
		shown := shownPartition{p.Number, p.Start, p.Engine.Incarnation(), p.Next, "", []shownInReach{}, []shownConfiguration{}, []shownIncarnation{}}
		if p.Unknown != nil {
			shown.Unknown = p.Unknown.Error()
		}
		for _, c := range p.InReach {
			held := shownInReach{Generation: c.Config.Generation, Windows: settingsByName(c.Config)}
			if c.From != 0 {
				held.From = c.From.Time()
			}
			shown.Committed = append(shown.Committed, held)
		}
		for _, f := range p.Found {
			if s := f.Incarnation; s != nil {
				shown.Incarnations = append(shown.Incarnations, shownIncarnation{f.Offset, f.AppendedAt.Time(), s.Number, s.PreviousEnd, s.Reason, s.Worker, f.Holds, f.Says})
				continue
			}
			c := shownConfiguration{f.Offset, f.AppendedAt.Time(), f.Config.Generation, f.From.Time(), f.Holds, f.Says, nil}
			if c.Generation > 0 {
				c.Windows = settingsByName(f.Config)
			}
			shown.Configurations = append(shown.Configurations, c)
		}
		all = append(all, shown)
	}
	return all
}
