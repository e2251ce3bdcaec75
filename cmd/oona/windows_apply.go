package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/history"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

type applyWindows struct {
	Generation int32     `env:"-" placeholder:"N" help:"Number of the configuration: above the newest one by at most 1000. Default: the next number."`
	From       time.Time `required:"" env:"-" placeholder:"RFC3339" help:"Event time from which the configuration is in effect, rounded up to the end of a window. It must be more than max-skew and at most 30 days from now."`
	Far        bool      `env:"-" help:"Allow --from to be more than 30 days from now. The windows cannot be changed again before that time, because no configuration can begin before the last one."`
	Many       bool      `env:"-" help:"Write it even if frames can still arrive for more than 32 earlier configurations (within max-delay). Each takes about 16 bytes of a commit, which leaves less room for timelines."`
	Yes        bool      `env:"-" help:"Do not ask for confirmation."`

	Reducer   int32  `env:"-" placeholder:"N" help:"Version of the reducers, which make rollups of frames: 1 or 2. Older programs stop at the record, so upgrade all readers and all aggregators first."`
	Catalogue string `env:"-" placeholder:"FILE" help:"YAML file of metrics (groups, units, directions) over the newest built-in catalogue. It is kept in the settings topic. Also: the hash of a catalogue that is kept there, or built-in."`

	AssumeNewest bool `env:"-" help:"If neither the log nor the group's commit of a partition says which configuration holds, start from the newest one that is found anywhere, or from the defaults. Without this flag, you must give every setting in that case."`

	Windows changes     `embed:"" group:"Windows"`
	Memory  memoryFlags `embed:"" group:"Windows"`

	catalogue *catalogue.Catalogue // of the flag; may be nil
}

// changes is a windows.Config with the fields whose flags are given. Unlike
// windows.Config, it has no Validate, which kong would call.
type changes windows.Config

// Run writes the record, and reads it back.
func (a *applyWindows) Run(ctx context.Context, c *grammar, command *kong.Context, to streams, logger *slog.Logger) error {
	h, err := c.Windows.history(ctx, logger)
	if err != nil {
		return err
	}
	newest := h.Newest()
	set := given(command)
	kept, err := a.resolve(ctx, c.Windows, set, logger)
	if err != nil {
		return err
	}
	next := windows.Configuration{Config: history.NameCatalogue(merge(newest, windows.Config(a.Windows), set)), From: oona.MicrosOf(a.From)}
	if next.Config.Generation, err = a.generation(newest.Generation, set); err != nil {
		return err
	}
	if next.Config, err = a.Memory.cap(next.Config, len(h.Partitions), set); err != nil {
		return err
	}
	if err := errors.Join(a.refuseUnknown(h, set), a.refuseMany(h)); err != nil {
		return err
	}
	if err := a.refuse(h, next, time.Now()); err != nil {
		return err
	}
	a.describe(to.messages, h, newest, next.Config)
	if err := confirm(to, a.Yes, fmt.Sprintf("Write generation %d to %s (partitions: %d)?", next.Config.Generation, h.Topic, len(h.Partitions))); err != nil {
		return err
	}
	if err := a.refuse(h, next, time.Now()); err != nil { // again, as the answer may have taken long
		return err
	}
	partitions := make([]int32, len(h.Partitions))
	before := make([]int, len(h.Partitions))
	for i, p := range h.Partitions {
		partitions[i], before[i] = p.Number, len(p.Found)
	}
	if err := a.write(ctx, kept, partitions, next); err != nil {
		return err
	}
	if err := h.ReadOn(ctx); err != nil {
		return err
	}
	err = h.Note(ctx, kept.topics, next)
	if err != nil {
		err = fmt.Errorf("the configuration is in the log, but could not be written to the settings topic; run oona windows show --restore: %w", err)
	}
	return errors.Join(reportWritten(to.out, h, next, before), err)
}

// resolve sets the reducer and the catalogue from the flags, and returns the shelf.
func (a *applyWindows) resolve(ctx context.Context, c windowsCommand, set map[string]bool, logger *slog.Logger) (*shelf, error) {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return nil, err
	}
	kept, err := openShelf(ctx, kafka.New(c.Bus, logger), topics, logger)
	if err != nil {
		return nil, err
	}
	a.Windows.Reducer = a.Reducer
	if set[catalogueSetting] {
		if a.catalogue, err = kept.find(a.Catalogue); err != nil {
			return nil, err
		}
		a.Windows.Catalogue = a.catalogue.Hash()
	}
	return kept, nil
}

// write writes the catalogue and then the configuration, so that a reader of the
// configuration finds the catalogue.
func (a *applyWindows) write(ctx context.Context, kept *shelf, partitions []int32, next windows.Configuration) error {
	if a.catalogue != nil {
		if _, err := kept.keep(ctx, a.catalogue); err != nil {
			return err
		}
	}
	if err := settings.WriteConfiguration(ctx, kept.bus, kept.topics, partitions, next.Record()); err != nil {
		return fmt.Errorf("write the configuration; some partitions may have it now, so look at oona windows show, and use a new generation to try again: %w", err)
	}
	return nil
}

// furthestFrom limits how far in the future a configuration may begin. As no
// configuration can begin before the last one, a typing error would prevent all further
// changes.
const furthestFrom = 30 * 24 * time.Hour

// generation returns the number of the next configuration.
func (a *applyWindows) generation(newest int32, set map[string]bool) (int32, error) {
	least, greatest, err := history.NextGenerations(newest)
	if err != nil {
		return 0, err
	}
	if !set["generation"] {
		return least, nil
	}
	if a.Generation < least || a.Generation > greatest {
		return 0, &oona.FieldError{Field: "--generation", Reason: fmt.Sprintf("is %d, but the newest is %d; give %d to %d, or omit the flag for the next number", a.Generation, newest, least, greatest)}
	}
	return a.Generation, nil
}

// refuseUnknown returns an error if it is not known which configuration holds in a
// partition and not all settings are given.
func (a *applyWindows) refuseUnknown(h *history.History, set map[string]bool) error {
	if a.AssumeNewest {
		return nil
	}
	var missing []string
	for _, s := range allOf(windows.Config(a.Windows)) {
		computed := set["memory-limit"] && (s.name == "max-accumulators" || s.name == "max-timeline-accumulators")
		if !set[s.name] && !computed {
			missing = append(missing, "--"+s.name)
		}
	}
	for _, p := range h.Partitions {
		if p.Unknown != nil && len(missing) > 0 {
			return fmt.Errorf("partition %d: %w, so settings that are not given would be reset. Give the aggregators' --group if it is another one, or all settings (%s are missing), or --assume-newest: it starts from generation %d, with the settings that oona windows show prints, or with the defaults",
				p.Number, p.Unknown, strings.Join(missing, ", "), h.Newest().Generation)
		}
	}
	return nil
}

func (a *applyWindows) refuseMany(h *history.History) error {
	p := h.Crowded()
	if p == nil || a.Many {
		return nil
	}
	return fmt.Errorf("partition %d has %d configurations for which frames may still arrive, and each takes space in its commits. A configuration gets no more frames max-delay (%s) after the next one began: wait, or give --many", p.Number, len(p.Engine.Configurations()), p.Engine.Config().MaxDelay)
}

// refuse returns an error if a configuration would have no effect in a partition.
func (a *applyWindows) refuse(h *history.History, c windows.Configuration, now time.Time) error {
	if err := aggregate.CheckWindows(c.Config); err != nil {
		return worker.NameFlag(c.Config, err)
	}
	record := c.Record()
	if err := record.Validate(); err != nil {
		return fmt.Errorf("it would be a dead letter: --%w", err)
	}
	if furthest := now.Add(furthestFrom); c.From.Time().After(furthest) && !a.Far {
		return &oona.FieldError{Field: "--from", Reason: fmt.Sprintf("is %s, more than 30 days from now, and the windows could not be changed again before that time; give at most %s, or --far",
			c.From.Time().Format(time.RFC3339), furthest.UTC().Format(time.RFC3339))}
	}
	if earliest := h.Earliest(now); c.From <= earliest {
		return &oona.FieldError{Field: "--from", Reason: fmt.Sprintf("is %s, but frames of that time may arrive before the record; give a time after %s, and add some seconds for writing the record",
			c.From.Time().Format(time.RFC3339), earliest.Time().Format(time.RFC3339Nano))}
	}
	err := h.Refuses(c, now)
	if void, ok := errors.AsType[*history.VoidError](err); ok {
		return &history.VoidError{Partition: void.Partition, Err: worker.NameFlag(c.Config, void.Err)}
	}
	return err
}

// describe prints what would change.
func (a *applyWindows) describe(w io.Writer, h *history.History, newest, next windows.Config) {
	fmt.Fprintf(w, "Generation %d after %d, for windows from %s on, rounded up to the end of a window:\n", next.Generation, newest.Generation, a.From.Format(time.RFC3339))
	for _, change := range differences(newest, next) {
		fmt.Fprintf(w, "  %s\n", change)
	}
	if newest.Catalogue == (oona.CatalogueHash{}) && next.Catalogue == oona.FirstCatalogue && a.catalogue == nil {
		fmt.Fprintln(w, "  The log named no catalogue of metrics, so the first built-in one is named. If the aggregators are started with --catalogue FILE, give that file here too.")
	}
	for _, p := range h.Partitions {
		if p.Empty() {
			continue
		}
		if p.Unknown != nil {
			fmt.Fprintf(w, "  partition %d: %s. So it is not known what changes there, or whether the configuration holds\n", p.Number, p.Unknown)
			continue
		}
		if held := p.Engine.Config(); held != newest {
			fmt.Fprintf(w, "  partition %d has generation %d, and there: %s\n", p.Number, held.Generation, strings.Join(differences(held, next), ", "))
		}
	}
}

// differences lists the settings that change.
func differences(old, next windows.Config) (all []string) {
	was := allOf(old)
	for i, s := range allOf(next) {
		if s != was[i] {
			all = append(all, fmt.Sprintf("%s: %v, was %v", s.name, s.value, was[i].value))
		}
	}
	return all
}

var errNotConfirmed = errors.New("not confirmed; nothing was written")

// confirm asks a question on a terminal, unless the answer is yes already.
func confirm(to streams, yes bool, question string) error {
	if yes {
		return nil
	}
	if f, ok := to.in.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		return fmt.Errorf("%w: the input is not a terminal; give --yes", errNotConfirmed)
	}
	return ask(to.in, to.messages, question)
}

// ask returns an error unless the answer is y or yes.
func ask(in io.Reader, out io.Writer, question string) error {
	fmt.Fprintf(out, "%s [y/N] ", question)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && err != io.EOF {
		return fmt.Errorf("%w: %w", errNotConfirmed, err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errNotConfirmed
}

// reportWritten prints the outcome of the record in each partition, after it was read back. It
// returns an error if it has no effect somewhere, or if that is not known.
func reportWritten(w io.Writer, h *history.History, written windows.Configuration, before []int) error {
	var void, unseen []string
	for i, p := range h.Partitions {
		name := fmt.Sprint(p.Number)
		seen := false
		for _, f := range p.Found[before[i]:] {
			if f.Configuration != written {
				continue
			}
			seen = true
			says := f.Says
			switch {
			case p.Unknown != nil:
				says = "written, but it is not known whether it holds: " + p.Unknown.Error()
				unseen = append(unseen, name)
			case !f.Holds:
				void = append(void, name)
			}
			fmt.Fprintf(w, "partition %s, offset %d: %s\n", name, f.Offset, says)
		}
		if !seen {
			unseen = append(unseen, name)
			fmt.Fprintf(w, "partition %s: the record is not in the log up to offset %d\n", name, p.Next)
		}
	}
	var err error
	if len(void) > 0 {
		err = fmt.Errorf("the configuration has no effect in partitions %s, perhaps because another one was written at the same time. See oona windows show, and write another generation with a later --from", strings.Join(void, ", "))
	}
	if len(unseen) > 0 {
		err = errors.Join(err, fmt.Errorf("it is not known whether the configuration holds in partitions %s. See oona windows show after the aggregators' next commit", strings.Join(unseen, ", ")))
	}
	return err
}
