package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/internal/top"
	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/pipeline/aggregate"
)

type topCommand struct {
	Bus    kafka.Config `embed:"" group:"Bus"`
	Prefix string       `group:"Bus" placeholder:"PREFIX" help:"Prefix of topic names."`
	Group  string       `group:"Bus" placeholder:"NAME" help:"Consumer group of the aggregators."`

	OfRun     oona.RunID    `name:"run" env:"-" placeholder:"ID" help:"Show only layers of this run."`
	Catalogue string        `placeholder:"FILE" help:"YAML file of metrics, for its rules of the verdict on a layer. Default: the built-in catalogue."`
	Lookback  time.Duration `env:"-" help:"How far back the rollups are read at the start. A verdict needs about ten windows."`
	Interval  time.Duration `env:"-" help:"Time between two updates."`
	Once      bool          `env:"-" help:"Print the state once, and exit."`
	JSON      bool          `name:"json" env:"-" help:"Print each update as one line of JSON."`

	Worker    []string             `env:"-" group:"Workers" placeholder:"URL" help:"Also ask the ingest whose admin port has this URL, for example http://oona-ingest:9101. Can be repeated. Without it, the ingests are those whose names the last frames on the bus have."`
	TokenFile string               `env:"-" group:"Workers" placeholder:"FILE" help:"File with the bearer token to send to these workers."`
	TLS       tlsfiles.ClientFlags `embed:"" prefix:"tls-" group:"Workers"`
}

func defaultTop() topCommand {
	return topCommand{Prefix: oona.DefaultPrefix, Group: aggregate.DefaultGroup, Lookback: lookback, Interval: 2 * time.Second}
}

// shortestInterval keeps the load on the bus small.
const shortestInterval = 200 * time.Millisecond

// Validate is called by kong when flags, environment and file have been read.
func (c *topCommand) Validate() error {
	for _, worker := range c.Worker {
		if err := checkURL("--worker", worker); err != nil {
			return err
		}
	}
	switch {
	case c.Group == "":
		return &oona.FieldError{Field: "--group", Reason: "is empty; give the name of a consumer group"}
	case c.Interval < shortestInterval:
		return &oona.FieldError{Field: "--interval", Reason: fmt.Sprintf("is %s; give at least %s", c.Interval, shortestInterval)}
	case c.Lookback < 0:
		return &oona.FieldError{Field: "--lookback", Reason: fmt.Sprintf("is %s; give 0 or more", c.Lookback)}
	}
	return c.TLS.Validate(smokeTLSFlags)
}

// warnings returns what is probably not meant in the settings.
func (c *topCommand) warnings() []*oona.FieldError {
	warnings := append(c.Bus.Security.Warnings(), c.TLS.Warnings(smokeTLSFlags)...)
	for _, worker := range c.Worker {
		warnings = append(warnings, clearToken("--worker", worker, c.TokenFile)...)
	}
	return warnings
}

func (c *topCommand) Run(ctx context.Context, to streams, logger *slog.Logger) (err error) {
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return err
	}
	known, err := catalogue.Open(c.Catalogue)
	if err != nil {
		return err
	}
	client, err := newClient(c.TLS, c.TokenFile, logger)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	full := terminalSize(to.out) != nil && !c.JSON && !c.Once
	var notes *top.Notes
	if full { // nothing else may write to the terminal
		notes = top.NewNotes()
		logger = slog.New(notes)
	}
	b := kafka.New(c.Bus, logger)
	reader, err := b.Reader(bus.ReaderOptions{From: time.Now().Add(-c.Lookback)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	source := &top.Source{
		Rollups: reader,
		Poller:  &top.Poller{Bus: b, Topics: topics, Group: c.Group, Workers: &top.Workers{Client: client, URLs: c.Worker, Refused: refused}},
		Board: watch.BoardOptions{
			Run: c.OfRun, Metrics: watch.DefaultMetrics(), Rule: known.Rule, Stay: max(c.Lookback, layersStay), Ended: layersStay, Logger: logger,
		},
		Interval: c.Interval, Settled: !full, Notes: notes,
	}
	if full {
		return c.onTerminal(ctx, to, source)
	}
	return source.Follow(ctx, func(s top.Snapshot) error {
		write := s.WriteLines
		if c.JSON {
			write = s.WriteJSON
		}
		if err := write(to.out); err != nil {
			return err
		}
		if c.Once {
			return top.ErrEnough
		}
		return nil
	})
}

// onTerminal shows snapshots on the terminal until the user quits or ctx ends.
func (c *topCommand) onTerminal(ctx context.Context, to streams, source *top.Source) error {
	ctx, cancel := context.WithCancel(ctx)
	// Without tea.WithContext, which closes the input while it is read.
	program := tea.NewProgram(top.NewModel(os.Getenv("NO_COLOR") == ""), tea.WithInput(to.in), tea.WithOutput(to.out), tea.WithoutSignalHandler())
	var following sync.WaitGroup
	var followErr error
	following.Go(func() {
		followErr = source.Follow(ctx, func(s top.Snapshot) error {
			program.Send(s)
			return nil
		})
		program.Quit()
	})
	_, err := program.Run()
	cancel()
	following.Wait()
	if err != nil {
		err = fmt.Errorf("show the state on the terminal: %w", err)
	}
	return errors.Join(err, followErr)
}
