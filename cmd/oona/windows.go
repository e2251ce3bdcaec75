package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/bus"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/windows"
)

type windowsCommand struct {
	Bus    bus.Config `embed:"" group:"Bus"`
	Prefix string     `group:"Bus" placeholder:"PREFIX" help:"What topic names begin with."`

	Show  showWindows  `cmd:"" help:"Print the configurations of the windows that are in the log of each partition. It reads the whole log."`
	Apply applyWindows `cmd:"" help:"Write a configuration of the windows into the log of every partition. Settings that are not given stay as the newest configuration has them. It reads the whole log."`
}

func defaultWindows() windowsCommand { return windowsCommand{Prefix: oona.DefaultPrefix} }

// history reads the logs of the seed-metrics topic, whose name it returns too.
// It is to be closed.
func (c *windowsCommand) history(ctx context.Context, logger *slog.Logger) (_ *history, topic string, err error) {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return nil, "", err
	}
	topic = topics.SeedMetrics
	h, err := openHistory(ctx, c.Bus, topic, logger)
	if err != nil {
		return nil, "", err
	}
	if err := c.readOn(ctx, h, topic); err != nil {
		return nil, "", errors.Join(err, h.close())
	}
	return h, topic, nil
}

// readOn reads up to where the logs end now.
func (c *windowsCommand) readOn(ctx context.Context, h *history, topic string) error {
	ends, err := bus.HighWater(ctx, c.Bus, topic)
	if err != nil {
		return err
	}
	return h.read(ctx, ends[topic])
}

type showWindows struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (s *showWindows) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) (err error) {
	h, _, err := c.Windows.history(ctx, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if s.JSON {
		encoder := json.NewEncoder(to.out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(h.shown())
	}
	for _, p := range h.partitions {
		fmt.Fprintf(to.out, "partition %d, offsets %d to %d\n", p.partition, p.start, p.next)
		if p.start > 0 {
			fmt.Fprintln(to.out, "  the log's beginning is gone, and what was configured there: whether the first one below holds is not sure")
		}
		if len(p.found) == 0 {
			fmt.Fprintln(to.out, "  no configuration: it is folded by the aggregator's own settings")
		}
		for _, f := range p.found {
			fmt.Fprintf(to.out, "  offset %d, appended %s: %s\n   ", f.offset, f.appendedAt.Time().Format(time.RFC3339), f.says)
			for _, s := range settingsOf(f.Config) {
				fmt.Fprintf(to.out, " %s=%v", s.name, s.value)
			}
			fmt.Fprintln(to.out)
		}
	}
	return nil
}

// shownPartition and shownConfiguration are what --json prints.
type shownPartition struct {
	Partition      int32                `json:"partition"`
	Start          int64                `json:"start"`
	End            int64                `json:"end"`
	Configurations []shownConfiguration `json:"configurations"`
}

type shownConfiguration struct {
	Offset     int64          `json:"offset"`
	AppendedAt time.Time      `json:"appended_at"`
	Generation int32          `json:"generation"`
	From       time.Time      `json:"from"`
	Holds      bool           `json:"holds"`
	Detail     string         `json:"detail"`
	Windows    map[string]any `json:"windows"`
}

func (h *history) shown() []shownPartition {
	all := make([]shownPartition, 0, len(h.partitions))
	for _, p := range h.partitions {
		shown := shownPartition{p.partition, p.start, p.next, []shownConfiguration{}}
		for _, f := range p.found {
			values := make(map[string]any)
			for _, s := range settingsOf(f.Config) {
				values[s.name] = s.value
			}
			shown.Configurations = append(shown.Configurations, shownConfiguration{
				f.offset, f.appendedAt.Time(), f.Config.Generation, f.From.Time(), f.holds, f.says, values,
			})
		}
		all = append(all, shown)
	}
	return all
}

// setting is a field of a windows.Config under the name of its flag; a duration
// is a text.
type setting struct {
	name  string
	value any
}

func settingsOf(cfg windows.Config) (all []setting) {
	v := reflect.ValueOf(cfg)
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("name")
		if name == "" {
			continue
		}
		value := v.Field(i).Interface()
		if d, ok := value.(time.Duration); ok {
			value = d.String()
		}
		all = append(all, setting{name, value})
	}
	return all
}

type applyWindows struct {
	Generation int32     `required:"" env:"-" help:"Number of the configuration, above all that are in the log."`
	From       time.Time `required:"" env:"-" placeholder:"RFC3339" help:"Event time from which it holds, rounded up to the end of a window; more than max-skew from now."`
	Yes        bool      `env:"-" help:"Do not ask."`

	Windows changes     `embed:"" group:"Windows"`
	Memory  memoryFlags `embed:"" group:"Windows"`
}

// changes are a windows.Config, of which only those fields count whose flags are
// given. It has no Validate for kong to call.
type changes windows.Config

// Run writes the record, and reads it back.
func (a *applyWindows) Run(ctx context.Context, c *grammar, command *kong.Context, to streams, logger *slog.Logger) (err error) {
	h, topic, err := c.Windows.history(ctx, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	newest := h.newest()
	set := given(command)
	next := windows.Configuration{Config: merge(newest, windows.Config(a.Windows), set), From: oona.MicrosOf(a.From)}
	next.Config.Generation = a.Generation
	if next.Config, err = a.Memory.cap(next.Config, len(h.partitions), set); err != nil {
		return err
	}
	if err := h.refuse(next, time.Now()); err != nil {
		return err
	}
	a.describe(to.messages, h, newest, next.Config)
	if err := a.confirm(to, fmt.Sprintf("Write generation %d to the %d partitions of %s?", a.Generation, len(h.partitions), topic)); err != nil {
		return err
	}
	if err := h.refuse(next, time.Now()); err != nil { // the answer may have taken long
		return err
	}
	partitions := make([]int32, len(h.partitions))
	before := make([]int, len(h.partitions))
	for i, p := range h.partitions {
		partitions[i], before[i] = p.partition, len(p.found)
	}
	if err := writeConfiguration(c.Windows.Bus, topic, partitions, next); err != nil {
		return err
	}
	if err := c.Windows.readOn(ctx, h, topic); err != nil {
		return err
	}
	return h.report(to.out, before)
}

// newest is the configuration of the highest generation that holds, the
// defaults where there is none.
func (h *history) newest() windows.Config {
	newest := windows.DefaultConfig()
	for _, p := range h.partitions {
		if c := p.engine.Config(); c.Generation > newest.Generation {
			newest = c
		}
	}
	return newest
}

// refuse says why a configuration would be void in a partition.
func (h *history) refuse(c windows.Configuration, now time.Time) error {
	if c.Config.Generation < 1 {
		return &oona.FieldError{Field: "--generation", Reason: fmt.Sprintf("is %d; generations count from 1", c.Config.Generation)}
	}
	if err := c.Config.Validate(); err != nil {
		return worker.NameFlag(c.Config, err)
	}
	earliest := oona.Micros(0)
	for _, p := range h.partitions {
		if newest := p.generation(); c.Config.Generation <= newest {
			return &oona.FieldError{Field: "--generation", Reason: fmt.Sprintf("is %d, and the log of partition %d has %d; give at least %d", c.Config.Generation, p.partition, newest, newest+1)}
		}
		stamp := max(oona.MicrosOf(now), p.appendedAt)
		earliest = max(earliest, stamp+oona.Micros(p.engine.Config().MaxSkew.Microseconds()))
	}
	if c.From <= earliest {
		return &oona.FieldError{Field: "--from", Reason: fmt.Sprintf("is %s, and frames of that time may come before the record; it must be later than %s, and some seconds more for writing it",
			c.From.Time().Format(time.RFC3339), earliest.Time().Format(time.RFC3339Nano))}
	}
	for _, p := range h.partitions {
		if err := p.engine.Refuses(c, oona.MicrosOf(now)); err != nil {
			return fmt.Errorf("it would be void in partition %d: %w", p.partition, worker.NameFlag(c.Config, err))
		}
	}
	return nil
}

// describe says what would change.
func (a *applyWindows) describe(w io.Writer, h *history, old, next windows.Config) {
	was := settingsOf(old)
	fmt.Fprintf(w, "Generation %d after %d, for windows from %s on:\n", next.Generation, old.Generation, a.From.Format(time.RFC3339))
	for i, s := range settingsOf(next) {
		if s != was[i] {
			fmt.Fprintf(w, "  %s: %v, was %v\n", s.name, s.value, was[i].value)
		}
	}
	for _, p := range h.partitions {
		if p.engine.Config().Generation == 0 && p.next > 0 {
			fmt.Fprintf(w, "  partition %d has no configuration yet: it is void there if the aggregators were started with other frontier-slots\n", p.partition)
		}
	}
}

var errNotConfirmed = errors.New("not confirmed; nothing was written")

func (a *applyWindows) confirm(to streams, question string) error {
	if a.Yes {
		return nil
	}
	if f, ok := to.in.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		return fmt.Errorf("%w: there is no terminal to ask at; give --yes", errNotConfirmed)
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

// report says what became of the records that were written, as they were read
// back.
func (h *history) report(w io.Writer, before []int) error {
	void := 0
	for i, p := range h.partitions {
		for _, f := range p.found[before[i]:] {
			fmt.Fprintf(w, "partition %d, offset %d: %s\n", p.partition, f.offset, f.says)
			if !f.holds {
				void++
			}
		}
	}
	if void > 0 {
		return fmt.Errorf("in %d partitions it changes nothing; write another generation, from a later time", void)
	}
	return nil
}

// given returns the names of the flags that the command line, a file or the
// environment sets.
func given(command *kong.Context) map[string]bool {
	names := make(map[string]bool)
	for _, p := range command.Path {
		if p.Flag != nil {
			names[p.Flag.Name] = true
		}
	}
	for _, flag := range command.Flags() {
		for _, variable := range flag.Envs {
			if _, set := os.LookupEnv(variable); set {
				names[flag.Name] = true
			}
		}
	}
	return names
}

// merge returns old with the settings of those names from changes.
func merge(old, changes windows.Config, names map[string]bool) windows.Config {
	to, from := reflect.ValueOf(&old).Elem(), reflect.ValueOf(changes)
	for i := range to.NumField() {
		if names[to.Type().Field(i).Tag.Get("name")] {
			to.Field(i).Set(from.Field(i))
		}
	}
	return old
}
