package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/units"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/internal/size"
	"github.com/morphogenetic/oona/pipeline/ingest"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/drain"
	"github.com/morphogenetic/oona/windows"
)

type spoolDrain struct {
	Bus kafka.Config `embed:"" group:"Bus"`

	Directory       string           `arg:"" name:"directory" type:"path" help:"Directory of the spool. It must be writable, because the command deletes what it has sent."`
	Rate            units.Base2Bytes `env:"-" placeholder:"SIZE" help:"Send at most this many bytes per second, so that the frames of running ingests are not delayed; 0 means no limit."`
	MaxMessageBytes int              `type:"size" env:"-" help:"Maximum size of a batch of records, at least 1KiB. Use the value of --max-message-bytes of ingest."`
	DryRun          bool             `env:"-" help:"Only print what would be sent, and which topics cannot be used. Nothing is sent or written, and the spool may be in use. The exit status is the one that the drain would have, as far as that is known."`
	Yes             bool             `env:"-" help:"Do not ask for confirmation."`
	JSON            bool             `name:"json" env:"-" help:"Print the report as JSON."`
}

func defaultSpoolDrain() spoolDrain {
	of := ingest.DefaultConfig()
	return spoolDrain{Rate: of.Spool.Rate, MaxMessageBytes: of.MaxMessageBytes}
}

// Validate checks the settings. Kong calls it after it has read the flags, the environment and the
// configuration file.
func (d *spoolDrain) Validate() error {
	if d.Rate < 0 {
		return &oona.FieldError{Field: "--rate", Reason: fmt.Sprintf("is %s; give 0 or more", size.Text(d.Rate))}
	}
	if d.MaxMessageBytes < 1<<10 {
		return &oona.FieldError{Field: "--max-message-bytes", Reason: "is too low; use the value of --max-message-bytes of ingest"}
	}
	return nil
}

// drainReport says what a drain has done, or what it would do in a dry run.
type drainReport struct {
	DryRun bool `json:"dry_run"`
	drain.Report
	// Stale has for each run the number of frames that were already too old for the windows when the
	// drain began. It is empty if the limits of the windows are not known.
	Stale map[oona.RunID]int64 `json:"stale,omitempty"`
}

// Run runs the command.
func (d *spoolDrain) Run(ctx context.Context, to streams, logger *slog.Logger) (err error) {
	if d.DryRun {
		return d.dryRun(ctx, to, logger)
	}
	before, err := listSpool(ctx, d.Directory, nil) // this fails for a directory that is not a spool, which open would make one
	if err != nil {
		return err
	}
	s, err := d.open(logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	b := kafka.New(d.Bus, logger)
	listing, err := listSpool(ctx, d.Directory, d.limits(ctx, b, before, to))
	if err != nil {
		return err
	}
	if listing.Requests+listing.Unknown+listing.Lost == 0 {
		fmt.Fprintf(to.messages, "There is nothing to send in %s\n", d.Directory)
		return nil
	}
	unusable, err := d.announce(ctx, b, listing, to)
	if err != nil {
		return err
	}
	topics := usable(listing, unusable)
	if len(topics) == 0 && len(unusable) > 0 {
		return d.print(to, &drainReport{Stale: listing.stale, Report: drain.Report{Left: listing.Requests, Lost: listing.Lost, Unusable: listing.topics}})
	}
	if err := confirm(to, d.Yes, fmt.Sprintf("Send %s to %s?", listing.amountsOf(topics), strings.Join(topics, ", "))); err != nil {
		return err
	}
	publisher, err := b.Publisher(d.publisher(topics))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	shown := newProgress(to.messages)
	shown.begin("sending records", listing.Frames+listing.Events)
	work := &drain.Drain{Spool: s, Publisher: publisher, Rate: int64(d.Rate), Unusable: maps.Clone(unusable), Sent: shown.add, Aside: func(sequence uint64, why error) {
		shown.end()
		fmt.Fprintf(to.messages, "oona: request %d is set aside, because all or part of it cannot be sent: %v\n", sequence, why)
	}}
	report := drainReport{Stale: listing.stale}
	report.Report, err = work.Run(ctx)
	shown.end()
	for _, topic := range slices.Sorted(maps.Keys(report.Unusable)) {
		if unusable[topic] != nil {
			continue // announce has reported it
		}
		noteUnusable(to, topic, report.Unusable[topic], work.Unusable[topic])
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("interrupted; run the same command again to continue: %w", err)
	}
	return errors.Join(err, d.print(to, &report))
}

// limits returns a function that reports whether a frame would be put aside now because it is too
// old for the windows. If the limits of a topic cannot be read, it prints a note, and the function
// returns false for frames to that topic.
func (d *spoolDrain) limits(ctx context.Context, b bus.Bus, l *spoolListing, to streams) func(topic string, f *oona.Frame) bool {
	const slack = oona.Micros(2_000_000) // the append time decides, and the clock of the bus may differ from this one
	of := make(map[string]*windows.Limits)
	for topic := range l.topics {
		topics, err := topicsOf(topic)
		if err != nil || topic != topics.SeedMetrics {
			continue
		}
		limits, err := settings.ReadLimits(ctx, b, topics)
		if err != nil && !errors.Is(err, bus.ErrNoTopic) { // announce reports a topic that does not exist
			fmt.Fprintf(to.messages, "oona: cannot tell which frames are too old for the windows of %s: %v\n", topic, err)
		}
		of[topic] = limits
	}
	return func(topic string, f *oona.Frame) bool {
		now := oona.MicrosOf(time.Now())
		why, _ := of[topic].Judge(f, now-slack, now+slack)
		return why == windows.ReasonStale
	}
}

// dryRun prints what a drain would send. It returns an error if the drain would certainly return one.
func (d *spoolDrain) dryRun(ctx context.Context, to streams, logger *slog.Logger) error {
	before, err := listSpool(ctx, d.Directory, nil)
	if err != nil {
		return err
	}
	b := kafka.New(d.Bus, logger)
	listing, err := listSpool(ctx, d.Directory, d.limits(ctx, b, before, to))
	if err != nil {
		return err
	}
	noteUse(to.messages, d.Directory, listing.InUse)
	unusable, err := d.announce(ctx, b, listing, to)
	if err != nil {
		return err
	}
	report := drainReport{DryRun: true, Stale: listing.stale, Report: drain.Report{
		Requests: listing.Requests, Topics: listing.messages(), Bytes: listing.all.bytes, Aside: listing.Unknown, Lost: listing.Lost, Unusable: make(map[string]int64),
	}}
	for topic := range unusable {
		report.Unusable[topic] = listing.topics[topic]
		report.Requests, report.Left = report.Requests-listing.topics[topic], report.Left+listing.topics[topic]
		delete(report.Topics, topic)
	}
	if d.JSON {
		err = writeJSON(to.out, report)
	}
	if err == nil && report.incomplete() {
		err = errIncompleteDryRun
	}
	return err
}

// What to do about a spool that cannot be opened.
var (
	errIngestRuns  = errors.New("a running ingest sends the content of its spool by itself when the bus is available; to drain the spool with this command, stop the ingest first")
	errDrainWrites = errors.New("drain removes what it has sent; copy the whole directory to a place that this user may write to, and drain the copy")
)

// open opens the spool for this process.
func (d *spoolDrain) open(logger *slog.Logger) (*spool.Queues, error) {
	of := ingest.DefaultConfig().SpoolOptions(logger)
	of.MaxBytes, of.Headroom, of.RecordBytes = math.MaxInt64/2, 0, spoolRecordBytes // a drain adds no records, so it needs no limits
	s, err := spool.OpenQueues(d.Directory, of)
	if errors.Is(err, spool.ErrLocked) {
		return nil, fmt.Errorf("%w: %w", err, errIngestRuns)
	}
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: %w", err, errDrainWrites)
	}
	return s, err
}

// publisher returns the options of the publisher. They allow larger records than ingest does, because
// the path in the headers is longer.
func (d *spoolDrain) publisher(topics []string) bus.PublisherOptions {
	opts := bus.PublisherOptions{MaxMessageBytes: max(d.MaxMessageBytes+recordOverhead, oona.MaxSideBytes), BatchBytes: d.MaxMessageBytes, Compression: "lz4"}
	if len(topics) == 1 {
		opts.Pin = topics[0]
	}
	return opts
}

// messages returns the number of frames and events in the spool for each topic.
func (l *spoolListing) messages() map[string]int64 {
	of := make(map[string]int64)
	for _, layer := range l.Layers {
		of[layer.Topic] += layer.Frames + layer.Events
	}
	return of
}

// amountsOf describes how many frames and events are in the spool for the given topics.
func (l *spoolListing) amountsOf(topics []string) string {
	var frames, events int64
	for _, layer := range l.Layers {
		if slices.Contains(topics, layer.Topic) {
			frames, events = frames+layer.Frames, events+layer.Events
		}
	}
	return amounts(frames, events)
}

// usable returns the topics of a listing that can be used, sorted.
func usable(l *spoolListing, unusable map[string]error) (topics []string) {
	for topic := range l.topics {
		if unusable[topic] == nil {
			topics = append(topics, topic)
		}
	}
	slices.Sort(topics)
	return topics
}

// noteUnusable prints that requests stay in the spool because a topic cannot be used, and what to do.
func noteUnusable(to streams, topic string, requests int64, why error) {
	remedy := "create it with oona topics apply"
	if errors.Is(why, bus.ErrDenied) {
		remedy = "allow this user to write to it (docs/security.md#acls)"
	}
	fmt.Fprintf(to.messages, "oona: %s for the topic %s cannot be sent and will stay in the spool: %v; %s, and run the same command again\n", plural(requests, "request"), visible(topic), why, remedy)
}

// announce prints what will be sent. It returns the topics that cannot be used, with the reasons.
func (d *spoolDrain) announce(ctx context.Context, b bus.Bus, l *spoolListing, to streams) (unusable map[string]error, err error) {
	unusable = make(map[string]error)
	for topic := range l.topics {
		_, err := b.Extents(ctx, topic)
		switch {
		case errors.Is(err, bus.ErrNoTopic) || errors.Is(err, bus.ErrDenied):
			unusable[topic] = err
		case err != nil:
			return nil, err
		}
	}
	fmt.Fprintf(to.messages, "%s: %s\n", l.Directory, &l.all)
	if topics := usable(l, unusable); len(topics) > 0 {
		fmt.Fprintf(to.messages, "  to %s, in order. The path of each frame will begin with %s\n", strings.Join(topics, ", "), drain.PathPrefix)
	}
	for _, topic := range slices.Sorted(maps.Keys(unusable)) {
		noteUnusable(to, topic, l.topics[topic], unusable[topic])
	}
	for _, run := range slices.Sorted(maps.Keys(l.stale)) {
		fmt.Fprintf(to.messages, "  too old for the windows (max-delay), so the aggregator will put them into the quarantine topic: %s of run %s\n", plural(l.stale[run], "frame"), visible(string(run)))
	}
	if l.Lost > 0 {
		fmt.Fprintf(to.messages, "  lost by damage: %s\n", plural(l.Lost, "request"))
	}
	if l.Unknown > 0 {
		fmt.Fprintf(to.messages, "  to be set aside: %s\n", plural(l.Unknown, "record"))
	}
	if l.Problem != "" {
		fmt.Fprintf(to.messages, "  %s\n", l.Problem)
	}
	fmt.Fprintln(to.messages, "Frames whose windows have closed will go to the late topic; docs/operations.md says what to do about them.")
	return unusable, nil
}

// print prints the report, and returns an error if something was not sent.
func (d *spoolDrain) print(to streams, r *drainReport) error {
	if d.JSON {
		if err := writeJSON(to.out, r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(to.out, "Sent: %s\n", plural(r.Requests, "request"))
		for _, topic := range slices.Sorted(maps.Keys(r.Topics)) {
			fmt.Fprintf(to.out, "  %s to %s\n", plural(r.Topics[topic], "record"), topic)
		}
		if r.Left > 0 {
			fmt.Fprintf(to.out, "  %s left\n", plural(r.Left, "request"))
		}
		for _, topic := range slices.Sorted(maps.Keys(r.Unusable)) {
			fmt.Fprintf(to.out, "  %s of them for %s, which cannot be used\n", plural(r.Unusable[topic], "request"), visible(topic))
		}
		if r.Aside > 0 {
			fmt.Fprintf(to.out, "  %s set aside; oona spool cat --set-aside %s shows them\n", plural(r.Aside, "request"), d.Directory)
		}
		if r.Lost > 0 {
			fmt.Fprintf(to.out, "  %s lost by damage\n", plural(r.Lost, "request"))
		}
	}
	if r.incomplete() {
		return errIncompleteSpool
	}
	return nil
}

// incomplete reports whether a part of the spool is not on the bus after the drain.
func (r *drainReport) incomplete() bool { return r.Aside+r.Lost > 0 || len(r.Unusable) > 0 }
