package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/configcheck"
	"github.com/morphogenetic/oona/internal/history"
	"github.com/morphogenetic/oona/internal/remedy"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/windows"
)

type checkCommand struct {
	Ingest    []string `env:"-" placeholder:"FILE" help:"Configuration file of an ingest; - for one without a file. Repeat the flag for workers with different files."`
	Aggregate []string `env:"-" placeholder:"FILE" help:"Configuration file of an aggregator, as for --ingest."`
	Exporter  []string `env:"-" placeholder:"FILE" help:"Configuration file of an exporter, as for --ingest."`

	OneHost bool          `env:"-" help:"The workers run on one host: two that listen on the same port are an error. Without this flag they are a note, unless their addresses name one host."`
	Bin     string        `env:"-" placeholder:"DIR" help:"Directory of the workers' binaries, which are run with --check. Default: the directory of this binary."`
	Offline bool          `env:"-" help:"Do not check the topics."`
	Settle  time.Duration `kong:"-"` // see kafka.Config; for tests
	ReadLog bool          `env:"-" help:"Compare the windows with the log itself, and not with what the settings topic says of it. It reads the whole log."`
}

// Validate is called by kong when flags and file have been read.
func (c *checkCommand) Validate() error {
	if len(c.Ingest)+len(c.Aggregate)+len(c.Exporter) == 0 {
		return errors.New("nothing to check; give --ingest, --aggregate or --exporter, with a file or -")
	}
	if c.Offline && c.ReadLog {
		return errors.New("--offline and --read-log exclude each other")
	}
	return nil
}

var errFaults = errors.New("the configuration has faults")

// Run prints the effective configurations as YAML documents, and each fault as a
// message.
func (c *checkCommand) Run(ctx context.Context, to streams, logger *slog.Logger) error {
	workers, faults, err := c.ask(ctx)
	if err != nil {
		return err
	}
	for _, w := range workers {
		fmt.Fprintf(to.out, "---\n# %s\n%s", w, w.Effective)
		for _, warning := range w.Warnings {
			fmt.Fprintf(to.messages, "warning: %s: %s\n", w, warning)
		}
	}
	faults = append(faults, configcheck.Disagreements(workers)...)
	faults = append(faults, c.onOneHost(workers, to)...)
	if len(workers) > 0 && !c.Offline {
		more, err := c.cluster(ctx, workers, to, logger)
		if err != nil {
			return err
		}
		faults = append(faults, more...)
	}
	for _, fault := range faults {
		fmt.Fprintln(to.messages, "fault: "+fault)
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w: %d", errFaults, len(faults))
	}
	return nil
}

// onOneHost returns the conflicts of workers on one host. If the workers may run on
// several hosts, it prints the conflicts as notes instead.
func (c *checkCommand) onOneHost(workers []configcheck.Worker, to streams) []string {
	faults, perhaps := configcheck.OneHost(workers)
	if c.OneHost {
		return append(faults, perhaps...)
	}
	for _, says := range perhaps {
		fmt.Fprintf(to.messages, "note: if they run on one host (--one-host): %s\n", says)
	}
	return faults
}

// ask returns the workers whose configurations are valid, and the faults of the
// others.
func (c *checkCommand) ask(ctx context.Context) (workers []configcheck.Worker, faults []string, err error) {
	bin := c.Bin
	if bin == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, nil, fmt.Errorf("find the workers' binaries; give --bin: %w", err)
		}
		bin = filepath.Dir(self)
	}
	for _, kind := range []struct {
		name  string
		files []string
	}{{configcheck.Ingest, c.Ingest}, {configcheck.Aggregate, c.Aggregate}, {configcheck.Exporter, c.Exporter}} {
		for _, file := range kind.files {
			w, err := configcheck.Ask(ctx, bin, kind.name, file)
			if err != nil {
				faults = append(faults, err.Error())
				continue
			}
			workers = append(workers, w)
		}
	}
	return workers, faults, ctx.Err()
}

// securityOf returns how a worker secures its connections to the bus.
func securityOf(w configcheck.Worker) kafka.Security {
	return kafka.Security{
		TLS: w.On("bus-tls"),
		TLSFiles: tlsfiles.ClientFlags{
			CAFile: w.Text("bus-tls-ca-file"), ServerName: w.Text("bus-tls-server-name"), MinVersion: w.Text("bus-tls-min-version"),
			CertFile: w.Text("bus-tls-cert-file"), KeyFile: w.Text("bus-tls-key-file"),
		},
		SASL: w.Text("bus-sasl"), Username: w.Text("bus-sasl-username"),
		PasswordFile: w.Text("bus-sasl-password-file"), TokenFile: w.Text("bus-sasl-token-file"),
	}
}

// cluster checks the topics that the workers need. If the bus cannot be reached, it
// prints a note, as that is not a fault of the configuration.
func (c *checkCommand) cluster(ctx context.Context, workers []configcheck.Worker, to streams, logger *slog.Logger) (faults []string, err error) {
	at := kafka.Config{Brokers: workers[0].Strings("brokers"), ClientID: "oona-check", Security: securityOf(workers[0]), Settle: c.Settle}
	prefix := workers[0].Text("prefix")
	topics, err := oona.NewTopics(prefix)
	if err != nil {
		return nil, err
	}
	specs := slices.Concat(topics.Specs(0), []oona.TopicSpec{topics.SettingsSpec()}, topics.EventSpecs(0))
	for _, w := range workers {
		if w.On("raw") {
			specs = append(specs, topics.RawSpecs(0)...)
			break
		}
	}
	for i := range specs {
		if specs[i].Name == topics.SeedMetrics {
			specs[i].LeastMessageBytes = greatestRecord(workers)
		}
	}
	b := kafka.New(at, logger)
	notes, err := eventNotes(ctx, b, topics, b.Check(ctx, specs))
	for _, says := range notes {
		fmt.Fprintf(to.messages, "note: %s\n", says)
	}
	err = remedy.Add(err)
	if errors.Is(err, bus.ErrUnreachable) {
		fmt.Fprintf(to.messages, "note: only the files are checked: %v\n", err)
		return nil, nil
	}
	if wrong, ok := errors.AsType[*bus.TopicsError](err); ok {
		for _, f := range wrong.Faults {
			faults = append(faults, "topic "+f.String())
		}
		return faults, nil
	}
	if err != nil {
		return nil, err
	}
	log := windowsCommand{Bus: at, Prefix: prefix, Group: groupOf(workers)}
	installation, err := log.installation(logger)
	if err != nil {
		return nil, err
	}
	if faults, err = history.Misfits(ctx, installation, c.ReadLog); err != nil {
		return faults, err
	}
	var newest windows.Config
	source := "settings topic"
	if c.ReadLog {
		source = "log"
		newest, err = log.newestOfLog(ctx, logger)
	} else {
		newest, err = newestOfSettings(ctx, b, topics, logger)
	}
	switch {
	case ctx.Err() != nil:
		return faults, ctx.Err()
	case err != nil:
		return append(faults, err.Error()), nil
	case newest.Generation == 0:
		return faults, nil
	}
	return append(faults, compareWindows(newest, source, workers, to)...), nil
}

// greatestRecord returns the greatest --max-message-bytes of the ingests, or 0.
func greatestRecord(workers []configcheck.Worker) (limit int) {
	for _, w := range workers {
		if n, err := strconv.Atoi(w.Text("max-message-bytes")); err == nil && w.Kind == configcheck.Ingest {
			limit = max(limit, n)
		}
	}
	return limit
}

// groupOf returns the group of the first aggregator, or "".
func groupOf(workers []configcheck.Worker) string {
	for _, w := range workers {
		if w.Kind == configcheck.Aggregate {
			return w.Text("group")
		}
	}
	return ""
}

// newestOfLog returns the newest configuration in any partition. Its generation is 0
// if the log has no configuration. It reads the whole log.
func (c *windowsCommand) newestOfLog(ctx context.Context, logger *slog.Logger) (windows.Config, error) {
	h, err := c.history(ctx, logger)
	if err != nil {
		return windows.Config{}, err
	}
	return h.Newest(), nil
}

// newestOfSettings returns the newest configuration of any partition in the settings
// topic. Its generation is 0 if there is none.
func newestOfSettings(ctx context.Context, b bus.Bus, topics oona.Topics, logger *slog.Logger) (newest windows.Config, err error) {
	held, err := settings.Read(ctx, b, topics, logger)
	if err != nil {
		return newest, err
	}
	for partition, record := range held.Windows {
		c, err := windows.ConfigurationOf(&record)
		if err != nil {
			return newest, fmt.Errorf("the settings topic, partition %d: %w", partition, err)
		}
		if c.Config.Generation > newest.Generation {
			newest = c.Config
		}
	}
	return newest, nil
}

// compareWindows compares the workers with the newest configuration of the windows. If
// an aggregator has other settings, it prints a note, as the log's configuration holds.
func compareWindows(newest windows.Config, source string, workers []configcheck.Worker, to streams) (faults []string) {
	generation := fmt.Sprintf("generation %d in the %s", newest.Generation, source)
	for _, w := range workers {
		if w.Kind == configcheck.Exporter {
			faults = append(faults, configcheck.Forgets(w, generation, newest.Length+newest.OutOfOrderness+newest.AllowedLateness)...)
		}
		for _, s := range settingsOf(newest) {
			if said := w.Text(s.name); w.Kind == configcheck.Aggregate && said != fmt.Sprint(s.value) {
				fmt.Fprintf(to.messages, "note: %s: %s is %s; %s has %v, which holds\n", w, s.name, said, generation, s.value)
			}
		}
	}
	return faults
}
