package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/watch"
)

type watchCommand struct {
	Address string       `arg:"" optional:"" help:"Address, for example kasmina/telemetry/layer/enc.3/health or kasmina/telemetry/seed/enc.3/17/metrics, with + for any layer or seed; or the name of a topic. Without an address, the last window of each layer is shown: as a table on a terminal, and otherwise as a line for each window."`
	Bus     kafka.Config `embed:"" group:"Bus"`
	Prefix  string       `group:"Bus" placeholder:"PREFIX" help:"Prefix of topic names and addresses."`

	From      from         `env:"-" placeholder:"now|beginning|TIME" help:"Where to start: now, beginning (the oldest record of the topic), or a duration ago, for example 10m. Default: now, or 1h for a table of layers, because a verdict needs earlier windows."`
	Until     bound        `env:"-" placeholder:"now|TIME|OFFSET" help:"Stop there, in each partition, and show one partition after the other: now (where the log ends when the command starts), a time such as 2026-11-27T18:00:00Z, a duration ago such as 2h, or offset:N. The default of --from is then beginning."`
	Count     int          `env:"-" placeholder:"N" help:"Stop after this many records or windows; 0 means to run until Ctrl-C."`
	OfRun     oona.RunID   `name:"run" env:"-" placeholder:"ID" help:"Show only records of this run."`
	Layer     oona.LayerID `env:"-" placeholder:"ID" help:"Show only records of this layer, if the address is for all layers."`
	Metric    []string     `env:"-" placeholder:"NAME" help:"Metrics whose means are shown for each layer, if there is no address."`
	Catalogue string       `placeholder:"FILE" help:"YAML file of metrics, for its rules of the verdict on a layer. Default: the built-in catalogue."`
	JSON      bool         `name:"json" env:"-" help:"Print one JSON object per record; this is the default if the output is not a terminal. A frame has the form that POST /v1/frames accepts."`
	Table     bool         `env:"-" help:"Print a table, even if the output is not a terminal."`
	All       bool         `env:"-" help:"Also show repeated rollups, which readers drop."`

	Resolve bool              `env:"-" group:"Tensors" help:"Fetch and verify the tensors that claims refer to, and show a summary of each."`
	Tensors claimcheck.Config `embed:"" group:"Tensors"`
}

func defaultWatch() watchCommand {
	return watchCommand{Prefix: oona.DefaultPrefix, Metric: watch.DefaultMetrics(), Tensors: claimcheck.DefaultConfig()}
}

// from is the flag for where to start reading.
type from struct {
	given     bool
	beginning bool
	ago       time.Duration
}

// UnmarshalText accepts now, beginning, or a duration.
func (f *from) UnmarshalText(text []byte) error {
	switch string(text) {
	case "now":
		*f = from{given: true}
		return nil
	case "beginning":
		*f = from{given: true, beginning: true}
		return nil
	}
	ago, err := time.ParseDuration(string(text))
	if err != nil || ago < 0 {
		return fmt.Errorf("%q is not valid; give now, beginning, or a duration such as 10m", text)
	}
	*f = from{given: true, ago: ago}
	return nil
}

// time returns the time to read from, or zero for the beginning of the log.
func (f from) time(now time.Time) time.Time {
	if f.beginning {
		return time.Time{}
	}
	return now.Add(-f.ago)
}

// Validate is called by kong when flags, environment and file have been read.
func (w *watchCommand) Validate() error {
	switch {
	case w.JSON && w.Table:
		return errors.New("--json and --table cannot be used together; give one of them")
	case w.Count < 0:
		return fmt.Errorf("--count is %d; give 0 or more", w.Count)
	case w.Resolve && w.Tensors.Kind == claimcheck.KindNone:
		return errors.New("--resolve needs --tensor-store and its flags, with the same values as for ingest")
	case w.Address == "" && w.Until.text != "":
		return fmt.Errorf("--until needs an address, for example %s/telemetry/layer/+/health", w.Prefix)
	case w.Address == "" && (w.JSON || w.Table || w.All || w.Resolve):
		return fmt.Errorf("--json, --table, --all and --resolve need an address, for example %s/telemetry/layer/+/health; without one, the last window of each layer is shown", w.Prefix)
	}
	topics, err := oona.NewTopics(w.Prefix)
	if err != nil {
		return err
	}
	_, err = w.address(topics)
	return err
}

// address returns the parsed address, or the zero address if there is none.
func (w *watchCommand) address(topics oona.Topics) (address oona.Address, err error) {
	if w.Address == "" {
		return address, nil
	}
	if address, err = topics.ParseAddress(w.Address); err != nil || w.Layer == "" {
		return address, err
	}
	if address.Layer != "" && address.Layer != w.Layer {
		return address, &oona.FieldError{Field: "--layer", Reason: fmt.Sprintf("is %s, but the address is for layer %s", w.Layer, address.Layer)}
	}
	address.Layer = w.Layer
	return address, nil
}

// options returns the options for package watch.
func (w *watchCommand) options(to streams) (o watch.Options, err error) {
	if o.Topics, err = oona.NewTopics(w.Prefix); err != nil {
		return o, err
	}
	if o.Address, err = w.address(o.Topics); err != nil {
		return o, err
	}
	o.Run, o.All, o.Count = w.OfRun, w.All, w.Count
	o.Size = terminalSize(to.out)
	o.JSON = w.JSON || !w.Table && o.Size == nil
	if !w.Resolve {
		return o, nil
	}
	o.Resolve, err = claimcheck.Open(w.Tensors)
	return o, err
}

func (w *watchCommand) Run(ctx context.Context, to streams, logger *slog.Logger) (err error) {
	options, err := w.options(to)
	if err != nil {
		return err
	}
	if w.Address == "" {
		return w.layers(ctx, to, options.Topics, logger)
	}
	if w.Until.text != "" {
		return w.until(ctx, options, to, logger)
	}
	reader, err := kafka.New(w.Bus, logger).Reader(bus.ReaderOptions{From: w.From.time(time.Now()), AddedEvery: bus.DefaultAddedEvery})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	return watch.Follow(ctx, reader, options, to.out)
}

// lookback is how much of the past a table of layers begins with, so that it has verdicts from the
// start: a verdict needs some ten windows, and is hardly better with more than a hundred.
const lookback = time.Hour

// layersStay is how long the layers of a run are shown after its last window.
const layersStay = 5 * time.Minute

// layers shows the last window of each layer.
func (w *watchCommand) layers(ctx context.Context, to streams, topics oona.Topics, logger *slog.Logger) (err error) {
	known, err := catalogue.Open(w.Catalogue)
	if err != nil {
		return err
	}
	screen, closeScreen := openScreen(to.out)
	defer closeScreen()
	logger = aboveTable(screen, logger)
	options := watch.LayersOptions{
		BoardOptions: watch.BoardOptions{Run: w.OfRun, Layer: w.Layer, Metrics: w.Metric, Rule: known.Rule, Stay: layersStay, Logger: logger},
		Topics:       topics, Count: w.Count,
	}
	start := w.From.time(time.Now())
	if !w.From.given && w.Count == 0 && screen.Size != nil {
		start = start.Add(-lookback)
		options.Stay, options.Ended = lookback, layersStay
	}
	reader, err := kafka.New(w.Bus, logger).Reader(bus.ReaderOptions{From: start})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	return watch.FollowLayers(ctx, reader, options, screen)
}
