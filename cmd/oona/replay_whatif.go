package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/whatif"
	"github.com/morphogenetic/oona/windows"
)

type replayWhatIf struct {
	WhatIf   bool           `env:"-" group:"What if" help:"With --aggregate: fold the frames with the windows that the flags describe. Settings without a flag are taken from the last configuration of the log. The rollups are not compared. --window, --session and --lateness imply it."`
	Window   windowShape    `env:"-" group:"What if" placeholder:"LENGTH[/HOP]" help:"Length of the windows, such as 1m, or 1m/10s for a window of 1m that begins every 10s. Implies --what-if."`
	Session  time.Duration  `env:"-" group:"What if" placeholder:"GAP" help:"Sessions: a layer's window ends when no frame was observed for this long. Implies --what-if."`
	Lateness *time.Duration `env:"-" group:"What if" placeholder:"DURATION" help:"How long a window stays open after the watermark has passed its end. Implies --what-if."`
	Reducer  int32          `env:"-" group:"What if" placeholder:"N" help:"Version of the reducers: 1 or 2. Default: that of the log; at least 2 for hopping windows and sessions."`
	Partial  bool           `env:"-" group:"What if" help:"Emit all windows of the frames of the range. Without it, windows that may lack frames are left out: those that start before the range, and those that are open at its end."`
}

// windowShape is a flag for a length and a hop.
type windowShape struct{ length, hop time.Duration }

// UnmarshalText accepts LENGTH or LENGTH/HOP.
func (s *windowShape) UnmarshalText(text []byte) (err error) {
	length, hop, hops := strings.Cut(string(text), "/")
	if s.length, err = time.ParseDuration(length); err != nil || s.length <= 0 {
		return fmt.Errorf("%q is not valid; give a length such as 1m, or a length and a hop such as 1m/10s", text)
	}
	if !hops {
		return nil
	}
	if s.hop, err = time.ParseDuration(hop); err != nil || s.hop <= 0 {
		return fmt.Errorf("%q has no hop; give a length and a hop such as 1m/10s", text)
	}
	return nil
}

// asked reports whether the log's own windows are not used.
func (w *replayWhatIf) asked() bool {
	return w.WhatIf || w.Window.length > 0 || w.Session > 0 || w.Lateness != nil
}

// check returns an error if flags do not fit together.
func (w *replayWhatIf) check(aggregate bool) error {
	switch {
	case w.Session < 0:
		return fmt.Errorf("--session is %s; give a gap such as 30s", w.Session)
	case w.Session > 0 && w.Window.length > 0:
		return errors.New("--window and --session exclude each other")
	case w.asked() && !aggregate:
		return errors.New("--what-if, --window, --session and --lateness need --aggregate")
	case (w.Partial || w.Reducer != 0) && !w.asked():
		return errors.New("--partial and --reducer need --what-if, --window, --session or --lateness")
	}
	return nil
}

// settings returns the windows that are asked for. The log's own are given.
func (w *replayWhatIf) settings(own windows.Config, given windows.Config, set map[string]bool) whatif.Settings {
	s := whatif.Settings{Config: merge(own, given, set)}
	if w.Lateness != nil {
		s.Config.AllowedLateness = *w.Lateness
	}
	if w.Window.length > 0 {
		s.Config.Length = w.Window.length
	}
	if w.Window.hop > 0 && w.Window.hop != w.Window.length {
		s.Kind, s.Hop = oona.Hopping, w.Window.hop
	}
	if w.Session > 0 {
		s.Kind, s.Gap = oona.Session, w.Session
	}
	switch {
	case w.Reducer != 0:
		s.Config.Reducer = w.Reducer
	case s.Kind != oona.Tumbling:
		s.Config.Reducer = max(s.Config.Reducer, 2)
	}
	return s
}

// flags returns the names of the flags on the command line. Variables are for the log's own
// windows.
func flags(command *kong.Context) map[string]bool {
	names := make(map[string]bool)
	for _, p := range command.Path {
		if p.Flag != nil {
			names[p.Flag.Name] = true
		}
	}
	return names
}

// override is a setting that differs from the log's own.
type override struct {
	Setting string `json:"setting"`
	Log     string `json:"log"`
	WhatIf  string `json:"what_if"`
}

// overrides lists the settings that differ from the log's own.
func overrides(own windows.Config, s whatif.Settings) (all []override) {
	add := func(name string, a, b any) {
		if before, after := fmt.Sprint(a), fmt.Sprint(b); before != after {
			all = append(all, override{name, before, after})
		}
	}
	was := allOf(own)
	for i, now := range allOf(s.Config) {
		if s.Kind != oona.Session || now.name != "window-length" {
			add(now.name, was[i].value, now.value)
		}
	}
	add("window-kind", oona.Tumbling, s.Kind)
	add("window-hop", time.Duration(0), s.Hop)
	add("session-gap", time.Duration(0), s.Gap)
	return all
}

// whatIf folds the frames with other windows than the log's own.
func (r *replayRun) whatIf(ctx context.Context, job *replaying, command *kong.Context, to streams) (err error) {
	plan, err := r.plan(ctx, job)
	if err != nil {
		return err
	}
	if err := r.fits(ctx, job, plan); err != nil {
		return err
	}
	held, err := job.log.Extents(ctx, job.topics.SeedMetrics)
	if err != nil {
		return err
	}
	extents := held[job.topics.SeedMetrics]
	set := flags(command)
	given := r.Windows
	catalogues := job.find(ctx)
	if set[catalogueSetting] {
		c, err := catalogue.Open(r.Catalogue)
		if err != nil {
			return err
		}
		given.Catalogue = c.Hash()
		catalogues = func(oona.CatalogueHash) (*catalogue.Catalogue, error) { return c, nil }
	}
	out, err := r.sink(ctx, job, len(extents), to)
	if err != nil {
		return err
	}
	log, watching, err := r.watched(job, plan)
	if err != nil {
		return abort(out, err)
	}
	defer watching.end()
	all := imagined{}
	fold := func(part bus.Range) error {
		known, err := job.windowsAt(ctx, part.Partition, extents[part.Partition])
		if err != nil {
			return err
		}
		s := r.What.settings(known.Windows.Config, given, set)
		if err := s.Validate(); err != nil {
			return worker.NameFlag(s.Config, err)
		}
		all.note(overrides(known.Windows.Config, s), s)
		f := &whatif.Fold{Log: log, Topic: job.topics.SeedMetrics, Limits: oona.DefaultFrameLimits, Settings: s, Catalogues: catalogues.ForEngine(nil),
			Incarnation: known.Incarnation, Partial: r.What.Partial}
		if out != nil {
			f.Emit = out.Rollup
		}
		result, err := f.Partition(ctx, part, extents[part.Partition])
		if err != nil {
			return fmt.Errorf("fold %s/%d: %w", job.topics.SeedMetrics, part.Partition, err)
		}
		all.add(result)
		return nil
	}
	for _, part := range rangesOf(plan, job.topics.SeedMetrics) {
		if part.From >= part.End {
			continue
		}
		if err := fold(part); err != nil {
			return abort(out, foldEnded(ctx, err))
		}
	}
	watching.end()
	return finish(out, to, func(w io.Writer) error { return all.print(w, r.JSON) })
}

// abort ends a sink, which may be nil, after an error.
func abort(out sink, err error) error {
	if out == nil {
		return err
	}
	return errors.Join(err, out.Abort())
}

// finish ends a sink, which may be nil, and prints the results.
func finish(out sink, to streams, print func(io.Writer) error) error {
	if out == nil {
		return print(to.out)
	}
	if err := out.Close(); err != nil {
		return err
	}
	return print(out.results(to))
}

// windowsAt returns the log's own windows of a partition: the last that were written.
func (r *replaying) windowsAt(ctx context.Context, partition int32, held bus.Extent) (replay.Beginning, error) {
	known, err := r.beginnings()(ctx, partition)
	if err != nil || known.Windows.Config.Generation > 0 || held.Start > 0 {
		return known, err
	}
	first, found, err := whatif.FirstWindows(ctx, r.log, r.topics.SeedMetrics, partition)
	if err == nil && found {
		known.Windows = first
	}
	return known, err
}

// imagined is what was folded with other windows.
type imagined struct {
	Kind           string     `json:"window_kind"`
	Overrides      []override `json:"overrides"`
	Frames         int64      `json:"frames"`
	Duplicates     int64      `json:"duplicates"`
	Late           int64      `json:"late"`
	Quarantined    int64      `json:"quarantined"`
	Overflowed     int64      `json:"overflowed"`
	Undecoded      int64      `json:"undecoded"`
	Configurations int64      `json:"configurations_ignored"`
	Rollups        int64      `json:"rollups"`
	Before         int64      `json:"rollups_before"`
	Open           int        `json:"windows_open"`
}

func (a *imagined) note(changes []override, s whatif.Settings) {
	a.Kind = s.Kind.String()
	for _, c := range changes {
		known := false
		for _, o := range a.Overrides {
			known = known || o == c
		}
		if !known {
			a.Overrides = append(a.Overrides, c)
		}
	}
}

func (a *imagined) add(r *whatif.Result) {
	a.Frames += r.Verdicts[windows.Folded]
	a.Duplicates += r.Verdicts[windows.Duplicate]
	a.Late += r.Verdicts[windows.Late]
	a.Quarantined += r.Verdicts[windows.Quarantined]
	a.Overflowed += r.Verdicts[windows.Overflowed]
	a.Undecoded += r.Undecoded
	a.Configurations += r.Configurations
	a.Rollups += r.Rollups
	a.Before += r.Before
	a.Open += r.Open
}

func (a *imagined) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return writeJSON(w, a)
	}
	fmt.Fprintf(w, "%s windows; the log's own settings hold, but for these:\n", a.Kind)
	for _, o := range a.Overrides {
		fmt.Fprintf(w, "  %s: %s (the log: %s)\n", o.Setting, o.WhatIf, o.Log)
	}
	if len(a.Overrides) == 0 {
		fmt.Fprintln(w, "  none")
	}
	fmt.Fprintf(w, "%d frames folded, %d rollups; nothing is compared\n", a.Frames, a.Rollups)
	for _, more := range []struct {
		n    int64
		what string
	}{
		{a.Duplicates, "frames are repeats"},
		{a.Late, "frames are late; a longer --lateness takes them in"},
		{a.Quarantined, "frames have a time that cannot be right; see --max-delay and --max-skew"},
		{a.Overflowed, "frames are beyond a limit"},
		{a.Undecoded, "records have no valid frame"},
		{a.Configurations, "configuration records of the log were ignored"},
		{a.Before, "rollups were left out, as their windows start before the range; --partial emits windows of the range's frames alone"},
		{int64(a.Open), "windows were left out, as they are open at the end of the range; --partial emits them"},
	} {
		if more.n > 0 {
			fmt.Fprintf(w, "%d %s\n", more.n, more.what)
		}
	}
	return nil
}
