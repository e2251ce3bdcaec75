package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/replay/tensors"
	"github.com/morphogenetic/oona/windows"
)

type tensorsGC struct {
	Delete            bool          `env:"-" help:"Remove the tensors. Without this flag, gc only prints which tensors it would remove."`
	Yes               bool          `env:"-" help:"Do not ask for confirmation."`
	OlderThan         time.Duration `env:"-" placeholder:"DURATION" help:"Age from which a tensor may be removed, since it was stored or last sent again. Default: the longest retention of the topics plus the longest delay of a frame (--max-delay of the windows). It must be longer than frames wait in the spools of ingests."`
	Archives          []string      `name:"archive" env:"-" placeholder:"DIR" help:"Keep the tensors to which this archive refers. It must have been written by oona replay --archive. May be given several times. Directories that oona replay --avro or --parquet has written keep nothing alive: see --keep."`
	Keep              []string      `env:"-" placeholder:"FILE" help:"Keep the tensors whose SHA-256 or key is in this text file. May be given several times."`
	Settle            time.Duration `env:"-" default:"1m" placeholder:"DURATION" help:"Time to wait between setting tensors aside and deleting them. It must be longer than --store-timeout and --publish-timeout of ingest together."`
	IgnoreUndecodable bool          `env:"-" help:"Continue even if records cannot be decompressed, although it is not known which tensors they refer to."`
	EvenAll           bool          `env:"-" help:"Continue even if no record refers to any tensor of the store."`
	List              bool          `env:"-" help:"Also print the tensors that would be removed."`
	JSON              bool          `name:"json" env:"-" help:"Print the result as JSON."`
}

// leastAge is the least that --older-than may be: a tensor that is sent again counts as
// new after claimcheck.RenewAfter at the latest, and clocks differ.
const leastAge = 2 * claimcheck.RenewAfter

// Validate is called by kong when flags, environment and file have been read.
func (g *tensorsGC) Validate() error {
	switch {
	case g.OlderThan != 0 && g.OlderThan < leastAge:
		return &oona.FieldError{Field: "--older-than", Reason: fmt.Sprintf("is %s; give at least %s, as the age of a tensor that is sent again is known to the hour only", g.OlderThan, leastAge)}
	case g.Settle < 0:
		return &oona.FieldError{Field: "--settle", Reason: fmt.Sprintf("is %s; give at least 0s", g.Settle)}
	case g.Yes && !g.Delete:
		return errors.New("--yes is for --delete")
	}
	return nil
}

// collected is the result of gc.
type collected struct {
	DryRun    bool            `json:"dry_run"`
	OlderThan float64         `json:"older_than_seconds"`
	Records   int64           `json:"records"`
	Topics    []string        `json:"topics"`
	Opaque    int64           `json:"undecodable"`
	Plan      *tensors.Plan   `json:"plan"`
	List      []listedTensor  `json:"unreferenced,omitempty"`
	Result    *tensors.Result `json:"result,omitempty"`
}

var (
	errOpaque    = errors.New("records cannot be decompressed, so nobody knows which tensors they refer to")
	errNoneKnown = errors.New("no record refers to any tensor of the store")
)

// Run collects.
func (g *tensorsGC) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	store, b, err := c.Tensors.open(logger)
	if err != nil {
		return err
	}
	from, err := c.Tensors.sources(ctx, b, g.Archives, to)
	if err != nil {
		return err
	}
	age := g.OlderThan
	if age == 0 {
		if age, err = c.Tensors.longest(ctx, b, from, logger); err != nil {
			return err
		}
	}
	before := time.Now().Add(-age)
	for _, name := range g.Keep {
		if _, err := from.keep(name); err != nil {
			return err
		}
	}
	if err := from.read(ctx); err != nil {
		return fmt.Errorf("nothing was removed: %w", err)
	}
	collection := &tensors.Collection{Store: store, References: from.references, ReadOn: from.readOn, Settle: g.Settle,
		Moved: func(step string, _ int) { from.progress.begin(step, 0) }}
	plan, err := collection.Plan(ctx, before)
	if err != nil {
		return fmt.Errorf("nothing was removed: %w", err)
	}
	result := &collected{DryRun: !g.Delete, OlderThan: age.Seconds(), Records: from.references.Records, Topics: from.names(), Opaque: from.references.Opaque, Plan: plan}
	if g.List {
		for _, o := range plan.Candidates {
			result.List = append(result.List, list(store, o, nil))
		}
	}
	if !g.JSON {
		g.printPlan(to.out, result, age)
	}
	refused := g.refuse(from.references, plan)
	if refused == nil && g.Delete && plan.Unreferenced.Objects+plan.Aside.Objects > 0 {
		refused = g.delete(ctx, collection, result, to)
	}
	if g.JSON {
		return errors.Join(refused, writeJSON(to.out, result))
	}
	return errors.Join(refused, g.printResult(to.out, result))
}

// refuse returns why nothing may be removed.
func (g *tensorsGC) refuse(references *tensors.References, plan *tensors.Plan) error {
	if references.Opaque > 0 && !g.IgnoreUndecodable {
		var places []string
		for _, p := range references.FirstOpaque {
			places = append(places, p.String())
		}
		return fmt.Errorf("%w: %s, the first: %s; look at them with oona watch, and give --ignore-undecodable if their tensors are not needed", errOpaque, plural(references.Opaque, "record"), strings.Join(places, ", "))
	}
	known, removed := plan.Referenced.Objects+plan.AsideReferenced.Objects, plan.Unreferenced.Objects+plan.Aside.Objects
	if known == 0 && removed > 0 && !g.EvenAll {
		return fmt.Errorf("%w: are --brokers, --prefix, --tensor-bucket and --tensor-directory those of one installation? If the tensors are really not needed, give --even-all", errNoneKnown)
	}
	return nil
}

func (g *tensorsGC) delete(ctx context.Context, collection *tensors.Collection, result *collected, to streams) error {
	if err := confirm(to, g.Yes, fmt.Sprintf("Remove %s from the store for good?", amount(doomed(result.Plan)))); err != nil {
		return err
	}
	fmt.Fprintf(to.messages, "It sets the tensors aside, waits %s for requests that ingest has in hand, and reads what has come to the topics.\n", g.Settle)
	done, err := collection.Run(ctx, result.Plan)
	result.Result = &done
	return err
}

// doomed are the tensors that a plan removes.
func doomed(p *tensors.Plan) tensors.Amount {
	return tensors.Amount{
		Objects: p.Unreferenced.Objects + p.Aside.Objects - p.AsideReferenced.Objects,
		Bytes:   p.Unreferenced.Bytes + p.Aside.Bytes - p.AsideReferenced.Bytes,
	}
}

// longest returns the longest retention of the topics and the longest delay of a frame,
// together. Topics that keep their records for ever do not count: so do the tensors that
// these refer to.
func (c *tensorsCommand) longest(ctx context.Context, b bus.Bus, from *sources, logger *slog.Logger) (time.Duration, error) {
	var retention time.Duration
	for _, t := range from.topics {
		if !t.expires {
			continue
		}
		kept, err := b.Retention(ctx, t.name)
		if err != nil {
			return 0, err
		}
		retention = max(retention, kept.Age)
	}
	delay := windows.DefaultConfig().MaxDelay
	for _, prefix := range append([]string{c.Prefix}, c.OtherPrefixes...) {
		topics, err := oona.NewTopics(prefix)
		if err != nil {
			return 0, err
		}
		shared, err := settings.Read(ctx, b, topics, logger)
		if err != nil {
			return 0, err
		}
		for _, w := range shared.Windows {
			delay = max(delay, time.Duration(w.MaxDelay)*time.Microsecond)
		}
	}
	return retention + delay, nil
}

// names returns the topics that were read.
func (s *sources) names() (all []string) {
	for _, t := range s.topics {
		all = append(all, t.name)
	}
	return all
}

func (g *tensorsGC) printPlan(w io.Writer, r *collected, age time.Duration) {
	p := r.Plan
	fmt.Fprintf(w, "%d records of %d topics and %d archives were read.\n", r.Records, len(r.Topics), len(g.Archives))
	fmt.Fprintf(w, "  in the store  %s\n", amount(p.Store))
	fmt.Fprintf(w, "    referenced  %s\n", amount(p.Referenced))
	fmt.Fprintf(w, "         young  %s: not referenced, but stored or sent again in the last %s\n", amount(p.Young), shortAge(age))
	fmt.Fprintf(w, "  unreferenced  %s\n", amount(p.Unreferenced))
	if p.Aside.Objects > 0 {
		fmt.Fprintf(w, "     set aside  %s, by a gc that did not come to its end; records refer to %d of them\n", amount(p.Aside), p.AsideReferenced.Objects)
	}
	for _, one := range r.List {
		fmt.Fprintf(w, "%s  %9d  %s\n", one.Modified.Format(time.RFC3339), one.Size, one.SHA256)
	}
}

func (g *tensorsGC) printResult(w io.Writer, r *collected) (err error) {
	switch {
	case r.DryRun:
		_, err = fmt.Fprintln(w, "Nothing was removed. --delete removes the unreferenced.")
	case r.Result == nil && r.Plan.Unreferenced.Objects+r.Plan.Aside.Objects == 0:
		_, err = fmt.Fprintln(w, "There is nothing to remove.")
	case r.Result != nil:
		_, err = fmt.Fprintf(w, "Set aside: %s. Removed: %s.\n", amount(r.Result.SetAside), amount(r.Result.Deleted))
		if r.Result.Back.Objects > 0 {
			fmt.Fprintf(w, "Put back, as records refer to them now: %s.\n", amount(r.Result.Back))
		}
		if r.Result.Other.Objects > 0 {
			fmt.Fprintf(w, "Left to another gc at the same time: %s.\n", amount(r.Result.Other))
		}
	}
	return err
}
