package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona/internal/secret"
	"github.com/morphogenetic/oona/internal/tracing"
)

// Exit statuses of a worker.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // the command line, the environment or the file is wrong
)

// ExitUnread is the exit status of a program whose output is no longer read, as a shell says it of
// SIGPIPE.
const ExitUnread = 141

// IsUnread reports whether err says that the reader of out, a pipe, has ended, such as head. An
// error of another pipe or of a connection is not meant.
func IsUnread(out io.Writer, err error) bool {
	file, ok := out.(*os.File)
	wrong, failed := errors.AsType[*fs.PathError](err)
	return ok && failed && wrong.Path == file.Name() && errors.Is(wrong.Err, syscall.EPIPE)
}

// Worker is the argument of a worker's run function.
type Worker struct {
	Logger   *slog.Logger
	Registry *prometheus.Registry
	Admin    *Admin
	Secrets  *secret.Files   // their metrics are registered
	Tracer   *tracing.Tracer // nil if there are no traces

	stop       context.CancelFunc // ends the context of run
	unfinished unfinished
	closers    []closer
	started    atomic.Bool // Run was called
}

type closer struct {
	name  string
	close func() error
}

const (
	// starting is unfinished until the worker calls Run.
	starting = "the start"
	// startGrace is the time limit for a worker to end before it calls Run. It has
	// no work in progress, and may be waiting for a bus that does not answer.
	startGrace = time.Second
)

// Run runs the worker's components until ctx ends or one of them does, and waits
// for the others. It returns the first error. Meanwhile secret files are looked at.
func (w *Worker) Run(ctx context.Context, components ...Component) error {
	w.started.Store(true)
	w.unfinished.end(starting, nil)
	components = append(components, Component{Name: "secret files", Run: w.Secrets.Run})
	return runAll(ctx, w.stop, &w.unfinished, components...)
}

// OnClose registers a function to call after the worker's run function has returned.
// The function that was registered last is called first. The functions must return
// within the drain timeout. When it expires, the process exits, and the error names
// the function that has not returned.
func (w *Worker) OnClose(name string, close func() error) {
	w.closers = append(w.closers, closer{name, close})
}

// Close calls the functions of OnClose and returns all errors. Main calls it.
func (w *Worker) Close() (err error) {
	for _, c := range slices.Backward(w.closers) {
		w.unfinished.begin(c.name)
		failed := c.close()
		w.unfinished.end(c.name, failed)
		err = errors.Join(err, failed)
	}
	return err
}

// Main is a worker's main function: it parses the configuration, starts the
// admin server, calls run with a context that SIGINT, SIGTERM and SIGHUP end, and
// exits the process. The worker is ready once run has added its conditions and
// called Worker.Run, and they hold.
//
// The worker does not block if the reader of its log stops or ends: log lines wait in
// a queue, and SIGPIPE is ignored.
func Main(name, description string, cfg Configuration, run func(context.Context, *Worker) error, options ...kong.Option) {
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)         // a second SIGINT or SIGTERM kills the process
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		// A terminal that closes may send several of them.
		ctx, _ = signal.NotifyContext(ctx, syscall.SIGHUP)
	}
	os.Exit(execute(ctx, name, description, cfg, run, os.Args[1:], os.Stdout, os.Stderr, options...))
}

func execute(ctx context.Context, name, description string, cfg Configuration, run func(context.Context, *Worker) error, args []string, stdout, stderr io.Writer, options ...kong.Option) int {
	mistaken := MistakenVariables(os.Environ())
	done, err := Parse(cfg, name, description, args, stdout, options...)
	switch {
	case IsUnread(stdout, err) && bool(cfg.common().Check):
		return ExitUnread
	case IsUnread(stdout, err): // it was help or the version
		return exitOK
	}
	if err != nil || bool(cfg.common().Check) {
		for _, warning := range mistaken {
			fmt.Fprintf(stderr, "%s: warning: %s\n", name, warning)
		}
	}
	if err == nil && bool(cfg.common().Check) {
		for _, warning := range cfg.Warnings() {
			fmt.Fprintf(stderr, "%s: warning: %v\n", name, warning)
		}
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\nRun %s -h for help.\n", name, err, name)
		return exitUsage
	}
	if done {
		return exitOK
	}
	if cfg.common().CheckReady {
		if err := askReady(ctx, cfg.common(), stdout); err != nil {
			fmt.Fprintf(stderr, "%s: %v\n", name, err)
			return exitFailed
		}
		return exitOK
	}
	queue := newLogQueue(stderr)
	defer queue.close()
	logger := queue.logger(cfg.common().Log)
	slog.SetDefault(logger) // libraries must not wait for the log, either
	for _, warning := range mistaken {
		logger.Warn(warning)
	}
	for _, warning := range cfg.Warnings() {
		logger.Warn(warning.Error(), "setting", warning.Field)
	}
	registry := NewRegistry()
	registry.MustRegister(queue.collectors()...)
	if err := supervise(ctx, name, cfg.common(), logger, registry, run); err != nil {
		logger.Error(name+" failed", "err", err)
		return exitFailed
	}
	logger.Info(name + " has ended")
	return exitOK
}

// supervise runs the worker and its admin server. The admin server ends last, so that
// the drain can be watched. It returns at most DrainTimeout after the signal to stop,
// or startGrace if the worker has not called Run. Goroutines that have not ended by
// then are abandoned.
func supervise(ctx context.Context, name string, cfg *Config, logger *slog.Logger, registry *prometheus.Registry, run func(context.Context, *Worker) error) error {
	secrets := secret.NewFiles(logger)
	registry.MustRegister(secrets.Collectors()...)
	tracer, err := tracing.Open(cfg.Trace, cfg.process(name), secrets, registry, logger)
	if err != nil {
		return err
	}
	admin, err := openAdmin(ctx, name, cfg, secrets, registry, logger)
	if err != nil {
		return errors.Join(err, tracer.Close(0))
	}
	logger.Info(name+" starts", "build", ReadBuild().String())

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w := &Worker{Logger: logger, Registry: registry, Admin: admin, Secrets: secrets, Tracer: tracer, stop: stop}
	w.OnClose("traces", func() error { return tracer.Close(cfg.DrainTimeout / 4) }) // last, after all spans
	w.unfinished.begin(starting)
	admin.ReadyWhen(name, func() error {
		if ctx.Err() != nil {
			return errors.New("stopping")
		}
		if !w.started.Load() {
			return errors.New("starting")
		}
		return nil
	})
	adminContext, stopAdmin := context.WithCancel(context.WithoutCancel(ctx))
	adminEnded := make(chan error, 1)
	go func() {
		defer stop()
		adminEnded <- admin.Run(adminContext)
	}()

	drain := func() time.Duration {
		if w.started.Load() {
			return cfg.DrainTimeout
		}
		return min(cfg.DrainTimeout, startGrace)
	}
	err = within(ctx, drain, &w.unfinished, func() error {
		err := run(ctx, w)
		w.unfinished.end(starting, nil)
		w.unfinished.note(err)
		stop() // before Close, so that the drain timeout includes it
		return errors.Join(err, w.Close())
	})
	stopAdmin()
	return errors.Join(err, <-adminEnded)
}

// process returns what traces say of this process.
func (c *Config) process(name string) tracing.Process {
	host, _ := os.Hostname() // traces without it are of use, too
	return tracing.Process{Name: name, Instance: host, Version: ReadBuild().Version, Prefix: c.Prefix}
}

// openAdmin listens on the admin address.
func openAdmin(ctx context.Context, name string, cfg *Config, secrets *secret.Files, registry *prometheus.Registry, logger *slog.Logger) (*Admin, error) {
	secure, err := cfg.openAdminTLS(secrets)
	if err != nil {
		return nil, err
	}
	gate, err := cfg.openAdminAccess(secrets)
	if err != nil {
		return nil, err
	}
	listener, err := Listen(ctx, "--admin-address", cfg.AdminAddress)
	if err != nil {
		return nil, err
	}
	listener = &limited{Listener: listener, most: adminConnections, logger: logger}
	admin := NewAdmin("oona "+name, Secure(listener, secure), WithPrefix(registry, cfg.Prefix), logger)
	admin.prefix = cfg.Prefix
	admin.Restrict(gate)
	if cfg.AdminPprof {
		admin.ServeProfiles()
	}
	return admin, nil
}
