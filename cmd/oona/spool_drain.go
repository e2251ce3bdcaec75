package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/alecthomas/units"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/pipeline/ingest"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/drain"
)

type spoolDrain struct {
	Bus kafka.Config `embed:"" group:"Bus"`

	Directory       string           `arg:"" name:"directory" type:"path" help:"Directory of the spool. Its file system must be writable, as what was sent is removed."`
	Rate            units.Base2Bytes `env:"-" placeholder:"SIZE" help:"Send at most this many bytes per second, so that frames of running ingests are not delayed; 0: no limit."`
	MaxMessageBytes int              `env:"-" placeholder:"BYTES" help:"Maximum size of a batch of records. Give the value of ingest."`
	DryRun          bool             `env:"-" help:"Only say what would be sent, and check that the topics exist. Nothing is written, and the spool may be in use."`
	Yes             bool             `env:"-" help:"Do not ask for confirmation."`
	JSON            bool             `name:"json" env:"-" help:"Print the report as JSON."`
}

func defaultSpoolDrain() spoolDrain {
	of := ingest.DefaultConfig()
	return spoolDrain{Rate: of.Spool.Rate, MaxMessageBytes: of.MaxMessageBytes}
}

// Validate is called by kong when flags, environment and file have been read.
func (d *spoolDrain) Validate() error {
	if d.Rate < 0 {
		return &oona.FieldError{Field: "--rate", Reason: fmt.Sprintf("is %s; give 0 or more", d.Rate)}
	}
	if d.MaxMessageBytes < 1<<10 {
		return &oona.FieldError{Field: "--max-message-bytes", Reason: "is too low; give the value of ingest"}
	}
	return nil
}

// drainReport is what a drain has done, or would do.
type drainReport struct {
	DryRun bool `json:"dry_run"`
	drain.Report
}

// Run drains.
func (d *spoolDrain) Run(ctx context.Context, to streams, logger *slog.Logger) (err error) {
	if d.DryRun {
		return d.dryRun(ctx, to, logger)
	}
	if err := d.look(ctx); err != nil {
		return err
	}
	s, err := d.open(logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	listing, err := listSpool(ctx, d.Directory)
	if err != nil {
		return err
	}
	if listing.Requests+listing.Unknown+listing.Lost == 0 {
		fmt.Fprintf(to.messages, "%s has nothing to send\n", d.Directory)
		return nil
	}
	topics := slices.Sorted(maps.Keys(listing.topics()))
	b := kafka.New(d.Bus, logger)
	if err := d.announce(ctx, b, listing, to); err != nil {
		return err
	}
	if err := confirm(to, d.Yes, fmt.Sprintf("Send %s to %s?", amounts(listing.Frames, listing.Events), strings.Join(topics, ", "))); err != nil {
		return err
	}
	publisher, err := b.Publisher(d.publisher(topics))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	shown := newProgress(to.messages)
	shown.begin("sending records", listing.Frames+listing.Events)
	work := &drain.Drain{Spool: s, Publisher: publisher, Rate: int64(d.Rate), Sent: shown.add, Aside: func(sequence uint64, why error) {
		shown.end()
		fmt.Fprintf(to.messages, "oona: request %d is set aside, as it cannot be sent, or not in whole: %v\n", sequence, why)
	}}
	var report drainReport
	report.Report, err = work.Run(ctx)
	shown.end()
	if ctx.Err() != nil {
		err = fmt.Errorf("interrupted; the same command goes on where this one has ended: %w", err)
	}
	return errors.Join(err, d.print(to, &report))
}

// errNoSpool is returned for a directory that no ingest has used.
var errNoSpool = errors.New("the directory is no spool: it has no files of records, and no ingest has used it; give the --spool-directory of an ingest")

// look returns an error if the directory is no spool. Otherwise a wrong directory would look
// like a spool of which everything was sent. It does not write.
func (d *spoolDrain) look(ctx context.Context) error {
	listing, err := listSpool(ctx, d.Directory)
	if err != nil || len(listing.Files)+len(listing.SetAside) > 0 {
		return err
	}
	is, err := spool.IsSpool(d.Directory)
	if err == nil && !is {
		err = fmt.Errorf("%s: %w", d.Directory, errNoSpool)
	}
	return err
}

// dryRun says what would be sent.
func (d *spoolDrain) dryRun(ctx context.Context, to streams, logger *slog.Logger) error {
	if err := d.look(ctx); err != nil {
		return err
	}
	listing, err := listSpool(ctx, d.Directory)
	if err != nil {
		return err
	}
	noteUse(to.messages, d.Directory, len(listing.Files)+len(listing.SetAside), listing.InUse)
	if err := d.announce(ctx, kafka.New(d.Bus, logger), listing, to); err != nil {
		return err
	}
	if !d.JSON {
		return nil
	}
	return writeJSON(to.out, drainReport{DryRun: true, Report: drain.Report{Requests: listing.Requests, Topics: listing.topics(), Bytes: listing.all.bytes, Lost: listing.Lost}})
}

// open opens the spool for this process.
func (d *spoolDrain) open(logger *slog.Logger) (*spool.Spool, error) {
	fs, err := spool.OpenExisting(d.Directory)
	if err != nil {
		return nil, err
	}
	s, err := spool.Open(fs, spool.Options{RecordBytes: spoolRecordBytes, Keys: func([]byte) []string { return nil }, Logger: logger})
	if errors.Is(err, spool.ErrLocked) {
		return nil, fmt.Errorf("%w: an ingest that runs sends it itself when the bus is there; stop the ingest before you drain its spool", err)
	}
	return s, err
}

// publisher returns the options of the publisher. A record has a longer path than in
// ingest.
func (d *spoolDrain) publisher(topics []string) bus.PublisherOptions {
	opts := bus.PublisherOptions{MaxMessageBytes: max(d.MaxMessageBytes+recordOverhead, oona.MaxSideBytes), BatchBytes: d.MaxMessageBytes, Compression: "lz4"}
	if len(topics) == 1 {
		opts.Pin = topics[0]
	}
	return opts
}

// topics returns how many frames and events are left of each topic.
func (l *spoolListing) topics() map[string]int64 {
	of := make(map[string]int64)
	for _, layer := range l.Layers {
		of[layer.Topic] += layer.Frames + layer.Events
	}
	return of
}

// announce says what is sent. It returns an error if a topic does not exist.
func (d *spoolDrain) announce(ctx context.Context, b bus.Bus, l *spoolListing, to streams) error {
	fmt.Fprintf(to.messages, "%s: %s\n", l.Directory, &l.all)
	if topics := slices.Sorted(maps.Keys(l.topics())); len(topics) > 0 {
		if _, err := b.Extents(ctx, topics...); err != nil {
			return err
		}
		fmt.Fprintf(to.messages, "  to %s, in order, over paths that begin with %s\n", strings.Join(topics, ", "), drain.PathPrefix)
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
	fmt.Fprintln(to.messages, "Frames whose windows have closed by now go to the late topic; docs/operations.md says what to do then.")
	return nil
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
		if r.Aside > 0 {
			fmt.Fprintf(to.out, "  %s set aside; oona spool cat --set-aside %s shows them\n", plural(r.Aside, "request"), d.Directory)
		}
		if r.Lost > 0 {
			fmt.Fprintf(to.out, "  %s lost by damage\n", plural(r.Lost, "request"))
		}
	}
	if r.Aside+r.Lost > 0 {
		return errIncompleteSpool
	}
	return nil
}
