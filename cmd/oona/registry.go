package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/mirror"
	"github.com/morphogenetic/oona/schemas/registry"
)

type registryCommand struct {
	Registry registry.Config `embed:"" group:"Schema registry"`
	Prefix   string          `group:"Topics" placeholder:"PREFIX" help:"Prefix of topic names."`
	ToPrefix string          `name:"to-prefix" group:"Topics" placeholder:"PREFIX" help:"Prefix of the topics that mirror writes. Default: the prefix and .registry."`

	Check    checkRegistry    `cmd:"" help:"Compare the registry's subjects with Oona's schemas: those of the raw topic, and of the topics that mirror writes. The exit status is 1 if a version is not registered or is not compatible. Nothing is changed."`
	Register registerSchemas  `cmd:"" help:"Register Oona's schemas where they are missing, as subjects TOPIC-value. If a subject has a version that is not backward and forward compatible with Oona's, nothing is registered in it. A new subject gets the compatibility FULL_TRANSITIVE."`
	Mirror   mirrorToRegistry `cmd:"" help:"Copy rollups, and frames of side topics, to topics of another prefix, in the registry's encoding, until Ctrl-C. It continues where it was stopped. The topics are created if they do not exist."`
}

func defaultRegistry() registryCommand {
	return registryCommand{Prefix: oona.DefaultPrefix, Mirror: mirrorToRegistry{Group: "oona-mirror"}}
}

// Validate is called by kong when flags, environment and file have been read.
func (c *registryCommand) Validate() error {
	if !c.Registry.Given() {
		return &oona.FieldError{Field: "--registry-url", Reason: "is empty; give the URL of the schema registry"}
	}
	if c.ToPrefix == c.Prefix {
		return &oona.FieldError{Field: "--to-prefix", Reason: "is the prefix of Oona's own topics, which keep their form; give another one"}
	}
	return c.Registry.Validate()
}

// topics returns the names of Oona's topics, and of those that mirror writes.
func (c *registryCommand) topics() (from, to oona.Topics, err error) {
	if from, err = oona.NewTopics(c.Prefix); err != nil {
		return from, to, err
	}
	prefix := c.ToPrefix
	if prefix == "" {
		prefix = c.Prefix + ".registry"
	}
	to, err = oona.NewTopics(prefix)
	return from, to, err
}

const frameRecord = "kasmina.telemetry.SeedMetrics"

// standings examines the subjects of the raw topic and of the topics that mirror writes.
func (c *registryCommand) standings(ctx context.Context, logger *slog.Logger) (*registry.Registry, []*registry.Standing, error) {
	from, to, err := c.topics()
	if err != nil {
		return nil, nil, err
	}
	r, err := registry.Open(c.Registry, nil, logger)
	if err != nil {
		return nil, nil, err
	}
	if err := r.Probe(ctx); err != nil {
		return nil, nil, fmt.Errorf("--registry-url: %w", err)
	}
	all := append([]mirror.Pair{{To: from.SeedRaw, Record: frameRecord}}, mirror.Pairs(from, to)...)
	var standings []*registry.Standing
	for _, pair := range all {
		s, err := r.Examine(ctx, registry.Subject(pair.To), pair.Record)
		if err != nil {
			return nil, nil, err
		}
		standings = append(standings, s)
	}
	return r, standings, nil
}

type checkRegistry struct{}

var errSubjects = errors.New("some subjects are not as Oona needs them; what is missing is registered by: oona registry register")

// Run compares the subjects.
func (checkRegistry) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	_, standings, err := c.Registry.standings(ctx, logger)
	if err != nil {
		return err
	}
	if err := printStandings(to.out, standings); err != nil {
		return err
	}
	if slices.ContainsFunc(standings, func(s *registry.Standing) bool { return !s.Complete() }) {
		return errSubjects
	}
	return nil
}

type registerSchemas struct {
	DryRun bool `env:"-" help:"Print what would be registered, and register nothing."`
}

// Run registers what is missing. A subject that cannot have it does not keep it from the
// others.
func (r registerSchemas) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	client, standings, err := c.Registry.standings(ctx, logger)
	if err != nil {
		return err
	}
	var failed error
	for _, s := range standings {
		switch {
		case s.Complete():
		case r.DryRun && s.Conflict == nil:
			fmt.Fprintf(to.out, "%s: would register %s\n", s.Subject, missing(s))
		case r.DryRun:
			failed = errors.Join(failed, s.Conflict)
		default:
			what := missing(s)
			if err := client.Register(ctx, s); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			fmt.Fprintf(to.out, "%s: registered %s\n", s.Subject, what)
		}
	}
	return errors.Join(failed, printStandings(to.out, standings))
}

// missing lists the versions that are not registered.
func missing(s *registry.Standing) string {
	var versions []string
	for _, v := range s.Versions {
		if v.ID == 0 {
			versions = append(versions, fmt.Sprintf("%s version %d", v.Name, v.Version))
		}
	}
	return strings.Join(versions, ", ")
}

// printStandings prints a table of subjects.
func printStandings(w io.Writer, standings []*registry.Standing) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "subject\tids of versions\tother versions\tcompatibility\tproblem")
	for _, s := range standings {
		var ids []string
		for _, v := range s.Versions {
			id := "-"
			if v.ID != 0 {
				id = fmt.Sprint(v.ID)
			}
			ids = append(ids, fmt.Sprintf("v%d: %s", v.Version, id))
		}
		problem := ""
		switch {
		case s.Conflict != nil:
			problem = s.Conflict.Error()
		case !s.Complete():
			problem = "not registered"
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\n", s.Subject, strings.Join(ids, ", "), s.Others, s.Level, problem)
	}
	return table.Flush()
}

// ids returns the numbers of the versions of a subject, by fingerprint.
func ids(s *registry.Standing) map[uint64]int32 {
	numbers := make(map[uint64]int32)
	for _, v := range s.Versions {
		if v.ID != 0 {
			numbers[v.Fingerprint] = v.ID
		}
	}
	return numbers
}
