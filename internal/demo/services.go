package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/internal/buswatch"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/pipeline/export"
	"github.com/morphogenetic/oona/pipeline/ingest"
	"github.com/morphogenetic/oona/windows"
)

// services are what the demo runs: the broker, ingest, aggregate and exporter.
type services struct {
	topics    oona.Topics
	bus       bus.Bus
	brokers   []string
	ingest    *ingest.Stage
	aggregate *aggregate.Stage
	export    *export.Stage
	events    bus.Reader // of transitions

	transitions *export.Transitions
	tensors     *claimcheck.Store // nil with a given Kafka

	ingestURL  string
	adminURL   string
	tensorsURL string
	embedded   bool
	out        io.Writer
	logger     *slog.Logger
	playing    atomic.Pointer[run]
	recording  []byte           // nil for synthetic load
	runs       []oona.RunID     // that were played
	asked      <-chan struct{}  // closed by the signal to stop; nil: there is none
	patience   time.Duration    // see Config
	grace      time.Duration    // see Config
	before     aggregate.Counts // counts when loadgen started; a data directory may hold older runs

	ended   chan struct{} // closed when all services have ended; outcome is set then
	outcome error
	cancel  context.CancelFunc
	closers []func() error // for what the services use, in the order of opening
}

// start starts the services and returns when all of them are ready. asked is closed by the signal to
// stop, which does not end the services.
func start(ctx context.Context, asked <-chan struct{}, cfg Config, out io.Writer, logger *slog.Logger) (_ *services, err error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &services{out: out, logger: logger, asked: asked, patience: cfg.Patience, grace: cfg.Grace, cancel: cancel, ended: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	components, err := s.build(ctx, cfg)
	if err != nil {
		close(s.ended)
		return nil, err
	}
	go func() {
		defer close(s.ended)
		s.outcome = worker.RunAll(ctx, cfg.Grace, components...)
	}()
	return s, s.awaitReady(ctx)
}

// build makes the services, and returns those that have a Run method:
//
//	loadgen --HTTP--> ingest --> broker --> aggregate --> broker --> exporter --> admin (/metrics)
func (s *services) build(ctx context.Context, cfg Config) ([]worker.Component, error) {
	if err := s.openBus(ctx, cfg); err != nil {
		return nil, err
	}
	known, err := catalogue.Default()
	if err != nil {
		return nil, err
	}
	registry := worker.NewRegistry()
	runIngest, err := s.buildIngest(ctx, cfg, registry)
	if err != nil {
		return nil, err
	}
	runAggregate, err := s.buildAggregate(ctx, cfg, known, registry)
	if err != nil {
		return nil, err
	}
	if err := s.buildExport(known, registry); err != nil {
		return nil, err
	}
	listener, err := s.listen(ctx, "metrics", cfg.AdminPort)
	if err != nil {
		return nil, err
	}
	s.adminURL = "http://" + listener.Addr().String()
	admin := worker.NewAdmin("oona demo", listener, worker.WithPrefix(registry, cfg.Prefix), s.logger)
	admin.ReadyWhen("services", s.ready)
	watch, err := buswatch.New(s.bus, []string{s.topics.LayerHealth, s.topics.LayerPerformance}, s.export.SetEnds, registry, s.logger)
	if err != nil {
		return nil, err
	}
	admin.Note("bus", watch.Note)
	admin.Serve(export.StatusPath, export.StatusSays, s.export.Status(s.bus))
	return []worker.Component{
		{Name: "ingest", Run: runIngest},
		{Name: "aggregate", Run: runAggregate},
		{Name: "exporter", Run: s.export.Run},
		{Name: "events", Run: func(ctx context.Context) error { return s.transitions.Run(ctx, s.events, s.export.End) }},
		{Name: "bus watch", Run: watch.Run},
		{Name: "admin server", Run: admin.Run},
	}, nil
}

// openBus starts the embedded broker and the embedded tensor store, or uses the
// brokers of cfg.Kafka. It then creates the topics as oona topics apply does.
func (s *services) openBus(ctx context.Context, cfg Config) (err error) {
	if s.topics, err = oona.NewTopics(cfg.Prefix); err != nil {
		return err
	}
	s.brokers = cfg.Kafka
	if len(cfg.Kafka) == 0 {
		data := cfg.Data
		if data == "" {
			if data, err = os.MkdirTemp("", "oona-demo-"); err != nil {
				return fmt.Errorf("make a directory for the embedded broker: %w", err)
			}
			s.closers = append(s.closers, func() error { return os.RemoveAll(data) })
		}
		broker, err := embedded.Start(ctx, embedded.Options{DataDir: data, Port: cfg.BrokerPort, Logger: s.logger})
		if err != nil {
			return err
		}
		s.closers = append(s.closers, broker.Close)
		if err := s.openTensors(ctx, data, cfg.TensorsPort); err != nil {
			return err
		}
		s.embedded = true
		s.brokers = broker.Addrs
		s.sayMoved("the broker", cfg.BrokerPort, broker.Addrs[0])
	}
	connect := kafka.Config{Brokers: s.brokers, ClientID: "oona-demo"}
	if len(cfg.Kafka) > 0 {
		connect.Security = cfg.Security
	}
	s.bus = kafka.New(connect, s.logger)
	if _, err = s.bus.Apply(ctx, append(append(s.topics.Specs(cfg.Partitions), s.topics.EventSpecs(cfg.Partitions)...), s.topics.SettingsSpec(), s.topics.RedrivesSpec())); err != nil {
		return err
	}
	return s.writeFirst(ctx, cfg)
}

// writeFirst writes the first record of each empty partition: the configuration of
// windows, with the newest reducer and the newest built-in catalogue.
func (s *services) writeFirst(ctx context.Context, cfg Config) error {
	known, err := catalogue.Default()
	if err != nil {
		return err
	}
	first := windows.Configuration{Config: cfg.windows()}
	first.Config.Generation, first.Config.Reducer, first.Config.Catalogue = 1, windows.Reducer, known.Hash()
	_, err = settings.WriteFirst(ctx, s.bus, s.topics, first.Record(), "oona demo", s.logger)
	return err
}

func (s *services) buildIngest(ctx context.Context, cfg Config, registry *prometheus.Registry) (func(context.Context) error, error) {
	publisher, err := s.bus.Publisher(bus.PublisherOptions{})
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, publisher.Close)
	stage := ingest.DefaultConfig()
	stage.Topic, stage.Events = s.topics.SeedMetrics, s.topics
	stage.Instance = "demo"
	if s.tensors != nil { // else Tensors would be an interface that holds a nil pointer
		stage.Tensors = s.tensors
	}
	if s.ingest, err = ingest.New(stage, publisher, registry, s.logger); err != nil {
		return nil, err
	}
	listener, err := s.listen(ctx, "ingest", cfg.IngestPort)
	if err != nil {
		return nil, err
	}
	s.ingestURL = "http://" + listener.Addr().String()
	return func(ctx context.Context) error {
		ctx, stop := context.WithCancel(ctx)
		var following sync.WaitGroup
		following.Go(func() { settings.FollowLimits(ctx, s.bus, s.topics, s.logger, s.ingest.SetLimits) })
		defer following.Wait()
		defer stop()
		return s.ingest.Run(ctx, listener)
	}, nil
}

func (s *services) buildAggregate(ctx context.Context, cfg Config, known *catalogue.Catalogue, registry *prometheus.Registry) (func(context.Context) error, error) {
	publisher, err := s.bus.Publisher(bus.RollupOptions())
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, publisher.Close)
	stage := aggregate.Config{
		Worker: "demo", Topics: s.topics, Windows: cfg.windows(), Limits: oona.DefaultFrameLimits,
		Log: settings.Log{Bus: s.bus, Topics: s.topics, Worker: "demo"},
	}
	catalogues := settings.NewCatalogues(s.bus, s.topics, s.logger).ForWindows(ctx, known)
	if s.aggregate, err = aggregate.New(stage, catalogues, publisher, registry, s.logger); err != nil {
		return nil, err
	}
	subscriber, err := s.bus.Member(bus.MemberOptions{Group: cfg.group()}, s.aggregate)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, subscriber.Close)
	return func(ctx context.Context) error { return s.aggregate.Run(ctx, subscriber) }, nil
}

func (s *services) buildExport(known *catalogue.Catalogue, registry *prometheus.Registry) error {
	log, err := s.bus.Reader(bus.ReaderOptions{})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, log.Close)
	stage := export.DefaultConfig()
	stage.Topics = s.topics
	if s.export, err = export.New(stage, log, known, registry, s.logger); err != nil {
		return err
	}
	if s.events, err = s.bus.Reader(bus.ReaderOptions{}); err != nil {
		return err
	}
	s.closers = append(s.closers, s.events.Close)
	s.transitions, err = export.NewTransitions(stage, registry, s.logger)
	return err
}

// listen listens on the preferred port on loopback, or on another port if that one
// is in use.
func (s *services) listen(ctx context.Context, what string, port int) (net.Listener, error) {
	address := fmt.Sprintf("127.0.0.1:%d", port)
	listener, err := worker.Listen(ctx, "--"+what+"-port", address)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return listener, err
	}
	if listener, err = worker.Listen(ctx, "--"+what+"-port", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	s.sayMoved(what, port, listener.Addr().String())
	return listener, nil
}

// sayMoved prints where a server listens if that is not its preferred port.
func (s *services) sayMoved(what string, port int, address string) {
	if port != 0 && !strings.HasSuffix(address, fmt.Sprintf(":%d", port)) {
		fmt.Fprintf(s.out, "Port %d is in use: %s listens on %s instead.\n", port, what, address)
	}
}

// stopping reports whether the signal to stop has come.
func (s *services) stopping() bool {
	select {
	case <-s.asked:
		return true
	default:
		return false
	}
}

// ready returns why a service is not ready, or nil.
func (s *services) ready() error {
	return errors.Join(s.ingest.Ready(), s.aggregate.Ready(), s.export.Ready())
}

// awaitReady waits until all services are ready and have read what older demos
// left in the data directory.
func (s *services) awaitReady(ctx context.Context) error {
	deadline := time.Now().Add(2 * s.patience)
	for {
		if s.stopping() {
			return fmt.Errorf("%w while the services started", context.Canceled)
		}
		why := s.ready()
		if why == nil {
			m, err := s.measure(ctx)
			if err != nil {
				return err
			}
			if m.settled() {
				return nil
			}
			why = errors.New("the records on the topics have not all been read")
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the services did not become ready: %w", why)
		}
		if err := s.failed(); err != nil {
			return err
		}
		bus.Pause(ctx, pollInterval)
	}
}

// failed returns why the services have ended, or nil while they run.
func (s *services) failed() error {
	select {
	case <-s.ended:
		return errors.Join(errors.New("a service has stopped"), s.outcome)
	default:
		return nil
	}
}

// stop stops the services, then closes what they used. It waits for each of the two at most for the
// grace.
func (s *services) stop() error {
	s.cancel()
	<-s.ended
	closed := make(chan error, 1)
	go func() { closed <- s.close() }()
	select {
	case err := <-closed:
		return errors.Join(s.outcome, err)
	case <-time.After(s.grace):
		return errors.Join(s.outcome, fmt.Errorf("%w within %s; a temporary directory oona-demo-... may be left", errNotClosed, s.grace))
	}
}

var errNotClosed = errors.New("the connections and the servers of the demo were not closed")

// close closes what the services used, in reverse order of opening.
func (s *services) close() (err error) {
	for i := len(s.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, s.closers[i]())
	}
	return err
}
