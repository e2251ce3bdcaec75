package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
)

// Exit statuses of a worker.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // the command line, the environment or the file is wrong
)

// Worker is what Main hands to a worker's run function.
type Worker struct {
	Logger   *slog.Logger
	Registry *prometheus.Registry
	Admin    *Admin

	config  *Config
	started atomic.Bool // Run was called
}

// Run runs the worker's components until ctx ends or one of them does, as
// RunAll with the configured time to drain.
func (w *Worker) Run(ctx context.Context, components ...Component) error {
	w.started.Store(true)
	return RunAll(ctx, w.config.DrainTimeout, components...)
}

// Main is a worker's main function: it parses the configuration, starts the
// admin server, calls run with a context that SIGINT and SIGTERM end, and exits
// the process. The worker is ready once run has added its conditions and called
// Worker.Run, and they hold.
func Main(name, description string, cfg Configuration, run func(context.Context, *Worker) error, options ...kong.Option) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, name, description, cfg, run, os.Args[1:], os.Stdout, os.Stderr, options...))
}

func execute(ctx context.Context, name, description string, cfg Configuration, run func(context.Context, *Worker) error, args []string, stdout, stderr io.Writer, options ...kong.Option) int {
	done, err := Parse(cfg, name, description, args, stdout, options...)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\nRun %s -h for help.\n", name, err, name)
		return exitUsage
	}
	if done {
		return exitOK
	}
	logger := NewLogger(cfg.common().Log, stderr)
	if err := supervise(ctx, name, cfg.common(), logger, run); err != nil {
		logger.Error(name+" failed", "error", err)
		return exitFailed
	}
	logger.Info(name + " has ended")
	return exitOK
}

// supervise runs the worker beside its admin server, which outlives it, so that
// the drain can be watched.
func supervise(ctx context.Context, name string, cfg *Config, logger *slog.Logger, run func(context.Context, *Worker) error) error {
	listener, err := Listen(ctx, "--admin-address", cfg.AdminAddress)
	if err != nil {
		return err
	}
	registry := NewRegistry()
	admin := NewAdmin("oona "+name, listener, registry, logger)
	logger.Info(name+" starts", "build", ReadBuild().String())

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &Worker{Logger: logger, Registry: registry, Admin: admin, config: cfg}
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
		defer cancel()
		adminEnded <- admin.Run(adminContext)
	}()

	err = run(ctx, w)
	stopAdmin()
	return errors.Join(err, <-adminEnded)
}
