package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/deadletters"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/pipeline/ingest"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/schemas/registry"
	"github.com/morphogenetic/oona/windows"
)

type deadLettersRedrive struct {
	Places []string      `arg:"" optional:"" name:"place" help:"Records: TOPIC/PARTITION/OFFSET, as list prints it, or TOPIC/PARTITION/INCARNATION/OFFSET of where the record was before. Default: all that the flags select."`
	Which  letterFilters `embed:""`

	SetProducerEpoch epoch         `env:"-" group:"Repair" placeholder:"TIME" help:"Producer epoch of the frames: microseconds since 1970, or a time such as 2026-11-27T18:00:00Z. It gives frames a new identity, for those that conflict with others."`
	ShiftTime        time.Duration `env:"-" group:"Repair" placeholder:"DURATION" help:"Add this to observed_at of the frames, for a trainer whose clock was wrong. It may be negative."`
	Filter           string        `env:"-" group:"Repair" placeholder:"PROGRAM" help:"Command of the shell that gets each record as a line of JSON, and writes the repaired line, or nothing to leave the record out. It runs once for the confirmation, and once more when the record is sent."`

	DryRun bool    `env:"-" help:"Check everything, and send nothing."`
	Yes    bool    `env:"-" help:"Do not ask for confirmation."`
	Rate   float64 `env:"-" placeholder:"N" help:"Maximum number of records per second; 0 means no limit."`
	By     string  `env:"-" placeholder:"NAME" help:"Name of the person who redrives the records, for the header oona-redriven-by. Default: the user of this process."`
	JSON   bool    `name:"json" env:"-" help:"Print the result as JSON."`

	MaxMessageBytes   int               `type:"size" group:"Limits of ingest" help:"Maximum size of a record on the bus, as for ingest."`
	MaxReadings       int               `group:"Limits of ingest" help:"Maximum number of readings (seeds) in a frame."`
	MaxMetrics        int               `group:"Limits of ingest" help:"Maximum number of metrics in a frame."`
	MaxTensors        int               `group:"Limits of ingest" help:"Maximum number of tensors in a frame."`
	Registry          registry.Config   `embed:"" group:"Schema registry"`
	InlineTensorBytes int               `type:"size" group:"Tensors" help:"Maximum size of a tensor that stays in its frame. Larger tensors go to the tensor store if one is configured."`
	Store             claimcheck.Config `embed:"" group:"Tensors"`
}

func defaultRedrive() deadLettersRedrive {
	of := ingest.DefaultConfig()
	return deadLettersRedrive{
		Rate: 100, MaxMessageBytes: of.MaxMessageBytes, MaxReadings: of.MaxReadings, MaxMetrics: of.MaxMetrics, MaxTensors: of.MaxTensors,
		InlineTensorBytes: of.InlineTensorBytes, Store: claimcheck.DefaultConfig(),
	}
}

// epoch is a flag for the start time of a producer.
type epoch oona.Micros

// UnmarshalText accepts microseconds or a time.
func (e *epoch) UnmarshalText(text []byte) error {
	if n, err := strconv.ParseInt(string(text), 10, 64); err == nil && n > 0 {
		*e = epoch(n)
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil || at.UnixMicro() <= 0 {
		return fmt.Errorf("%q is not valid; give microseconds since 1970, or a time such as 2026-11-27T18:00:00Z", text)
	}
	*e = epoch(oona.MicrosOf(at))
	return nil
}

// Validate is called by kong when flags, environment and file have been read.
func (d *deadLettersRedrive) Validate() error {
	for _, limit := range []struct {
		name  string
		value int
	}{
		{"max-message-bytes", d.MaxMessageBytes - recordOverhead}, {"max-readings", d.MaxReadings}, {"max-metrics", d.MaxMetrics},
		{"max-tensors", d.MaxTensors}, {"inline-tensor-bytes", d.InlineTensorBytes},
	} {
		if limit.value < 1 {
			return &oona.FieldError{Field: "--" + limit.name, Reason: "is too low; give the value of ingest"}
		}
	}
	if !(d.Rate >= 0) { // NaN is neither
		return &oona.FieldError{Field: "--rate", Reason: fmt.Sprintf("is %g; give 0 or more", d.Rate)}
	}
	return errors.Join(d.Registry.Validate(), d.Store.Validate())
}

// recordOverhead is what a record has besides its frame, as ingest reckons.
const recordOverhead = 1 << 10

// checks returns the checks of ingest.
func (d *deadLettersRedrive) checks(ctx context.Context, m *mailbox, logger *slog.Logger) (c deadletters.Checks, err error) {
	defaults := windows.DefaultConfig()
	of := ingest.DefaultConfig()
	c = deadletters.Checks{MaxBodyBytes: of.MaxBodyBytes, Intake: intake.Config{
		Frame:     oona.FrameLimits{Seeds: d.MaxReadings, Metrics: d.MaxMetrics, Tensors: d.MaxTensors},
		MaxFrames: of.MaxFrames, MaxDecompressedBytes: of.MaxDecompressedBytes, MaxRecordBytes: d.MaxMessageBytes - recordOverhead,
		InlineTensorBytes: d.InlineTensorBytes,
	}}
	c.MaxSkew = m.longest(ctx, defaults.MaxSkew, func(w oona.WindowConfiguration) oona.Micros { return w.MaxSkew }, logger)
	c.MaxDelay = m.longest(ctx, defaults.MaxDelay, func(w oona.WindowConfiguration) oona.Micros { return w.MaxDelay }, logger)
	if len(d.Registry.URLs) > 0 {
		schemas, err := registry.Open(d.Registry, prometheus.NewRegistry(), logger)
		if err != nil {
			return c, err
		}
		c.Schema = schemaFinder(ctx, schemas)
	}
	if d.Store.Kind != claimcheck.KindNone {
		c.Store, err = claimcheck.Open(d.Store)
	}
	return c, err
}

// schemaFinder returns what finds the schemas of frames that a registry has.
func schemaFinder(ctx context.Context, schemas *registry.Registry) func(avro.SchemaID) (*avro.FrameSchema, *intake.Refusal) {
	return func(id avro.SchemaID) (*avro.FrameSchema, *intake.Refusal) {
		schema, err := schemas.Frame(ctx, id)
		switch {
		case err == nil:
			return schema, nil
		case errors.Is(err, registry.ErrUnknownID), errors.Is(err, avro.ErrUnreadable):
			return nil, intake.Refuse("schema", "%v", err)
		}
		return nil, intake.Refuse("registry", "schema %s cannot be looked up: %v", id, err).After(time.Second)
	}
}

var errNotSent = errors.New("records were not sent")

// Run redrives.
func (d *deadLettersRedrive) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) (err error) {
	m, err := c.DeadLetters.open(ctx, &d.Which, d.Places, logger)
	if err != nil {
		return err
	}
	checks, err := d.checks(ctx, m, logger)
	if err != nil {
		return err
	}
	// Two more headers than ingest's.
	publisher, err := m.bus.Publisher(bus.PublisherOptions{MaxMessageBytes: max(d.MaxMessageBytes+recordOverhead, oona.MaxSideBytes), BatchBytes: d.MaxMessageBytes, Compression: "lz4"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	shown := newProgress(to.messages)
	redrive := &deadletters.Redrive{
		Box: m.Box, Publisher: publisher, Topics: m.topics, Selection: m.selection, Checks: checks,
		Repair: deadletters.Repair{Epoch: oona.Micros(d.SetProducerEpoch), Shift: d.ShiftTime, Filter: d.Filter},
		Rate:   d.Rate, Read: shown.record, DryRun: true,
	}
	redrive.Call, redrive.By = caller(d.By)
	var report *deadletters.Report
	run := func(what string) error {
		shown.begin(what, m.total)
		defer shown.end()
		report, err = redrive.Run(ctx)
		return err
	}
	if d.DryRun || !d.Yes {
		if err := run("checking records"); err != nil {
			return err
		}
		if err := found(d.Places, report.Selected); err != nil {
			return err
		}
	}
	if !d.DryRun {
		if !d.Yes {
			if report.Redriven == 0 {
				report.DryRun = false // the result is that of a redrive
				return d.finish(ctx, m, report, to, logger)
			}
			d.announce(ctx, m, report, to.messages, logger)
			if err := confirm(to, false, fmt.Sprintf("Send %s to %s?", plural(int64(report.Redriven), "record"), m.topics.SeedMetrics)); err != nil {
				return err
			}
		}
		redrive.DryRun = false
		if err := run("redriving records"); err != nil {
			if ctx.Err() != nil {
				err = fmt.Errorf("interrupted; the same command goes on where this one has ended: %w", err)
			}
			return errors.Join(err, d.print(to, m, report))
		}
	}
	if err := found(d.Places, report.Selected); err != nil {
		return err
	}
	return d.finish(ctx, m, report, to, logger)
}

// finish prints the report, and returns an error if records were not sent.
func (d *deadLettersRedrive) finish(ctx context.Context, m *mailbox, r *deadletters.Report, to streams, logger *slog.Logger) error {
	if err := d.print(to, m, r); err != nil {
		return err
	}
	if late := r.Late(); late != nil {
		fmt.Fprintf(to.messages, "Late frames cannot be redriven. This computes their windows again, with them, for topics of another prefix:\n  %s\n", m.recompute(ctx, late, logger))
	}
	n := 0
	for _, refused := range r.Refused {
		n += refused.Count
	}
	if n > 0 {
		return fmt.Errorf("%w: %d", errNotSent, n)
	}
	return nil
}

func (d *deadLettersRedrive) print(to streams, m *mailbox, r *deadletters.Report) error {
	if d.JSON {
		return writeJSON(to.out, r)
	}
	verb := "Redriven"
	if r.DryRun {
		verb = "To redrive"
	}
	fmt.Fprintf(to.out, "%s: %s, %s, over the path %s\n", verb, plural(int64(r.Redriven), "record"), plural(int64(r.Frames), "frame"), r.Path)
	return printCounts(to.out, r)
}

func printCounts(w io.Writer, r *deadletters.Report) (err error) {
	for _, row := range []struct {
		n    int
		text string
	}{
		{r.Finished, "of them begun by an earlier redrive, and sent as it would have sent them"},
		{r.Done, "redriven before"}, {r.Discarded, "discarded before"}, {r.Repeats, "the same records again"}, {r.Skipped, "left out by the filter"},
	} {
		if row.n > 0 {
			fmt.Fprintf(w, "  %6d %s\n", row.n, row.text)
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(r.Refused)) {
		of := r.Refused[reason]
		_, err = fmt.Fprintf(w, "  %6d not sent (%s), the first %s: %s\n", of.Count, reason, of.First, visible(of.Detail))
	}
	return err
}

// announce says what redriving does.
func (d *deadLettersRedrive) announce(ctx context.Context, m *mailbox, r *deadletters.Report, w io.Writer, logger *slog.Logger) {
	fmt.Fprintf(w, "%s selected.\n", plural(int64(r.Selected), "record"))
	fmt.Fprintf(w, "  %6d to send: %s, over the path %s, in the order of their side topic\n", r.Redriven, plural(int64(r.Frames), "frame"), r.Path)
	_ = printCounts(w, r)
	if r.Repair != "" {
		fmt.Fprintf(w, "  repair: %s\n", r.Repair)
	}
	idle := m.longest(ctx, windows.DefaultConfig().IdleHorizon, func(c oona.WindowConfiguration) oona.Micros { return c.IdleHorizon }, logger)
	fmt.Fprintf(w, "The watermarks of these runs may wait for the redriven frames until %s after the last one (the idle horizon), and no longer.\n", idle)
	fmt.Fprintln(w, "Frames whose windows have closed by now go to the late topic.")
}

// longest returns the longest of a time that the configurations of the windows have.
func (m *mailbox) longest(ctx context.Context, unless time.Duration, of func(oona.WindowConfiguration) oona.Micros, logger *slog.Logger) time.Duration {
	var most oona.Micros
	if shared, err := settings.Read(ctx, m.bus, m.topics, logger); err == nil {
		for _, c := range shared.Windows {
			most = max(most, of(c))
		}
	}
	if most == 0 {
		return unless
	}
	return time.Duration(most) * time.Microsecond
}

// recompute returns the command that computes the windows of late frames again.
func (m *mailbox) recompute(ctx context.Context, late *deadletters.Refused, logger *slog.Logger) string {
	defaults := windows.DefaultConfig()
	length := m.longest(ctx, defaults.Length, func(c oona.WindowConfiguration) oona.Micros { return c.Length }, logger)
	delay := m.longest(ctx, defaults.MaxDelay, func(c oona.WindowConfiguration) oona.Micros { return c.MaxDelay }, logger)
	prefix := sideBase(m.topics)
	prefix = prefix[:len(prefix)-len(".telemetry.seed.")]
	return fmt.Sprintf("oona replay %s --aggregate --from %s --window %s --lateness %s --partial --publish --create --prefix %s-recomputed",
		m.topics.SeedMetrics, late.From.Time().Add(-delay).Format(time.RFC3339), length, delay, prefix)
}
