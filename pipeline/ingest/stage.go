package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona/bus"
)

// Stage takes frames over HTTP and publishes them.
type Stage struct {
	*intake
	metrics *requestMetrics

	slots    chan struct{} // one a request whose body is there, until it is published
	storing  chan struct{} // one a request that waits for the tensor store
	frames   *share        // of memory: requests with frames, until they are published
	tensors  *share        // of memory: tensors that are sent by themselves, until they are stored
	spools   byteBudget    // the same tensors, in memory and in $TMPDIR
	cut      context.Context
	cutOff   context.CancelFunc // ends what a stage that is to end waits for no longer
	discards chan struct{}      // one a refused request whose body is thrown away

	discarding    context.Context
	endDiscarding context.CancelFunc // when the stage is to end

	decoders sync.Pool // of *decoders
	codings  *codings
	phase    atomic.Int32
	grace    time.Duration // beyond the publish timeout, for requests in hand when the stage ends
}

// Grace is how long beyond the publish timeout a stage that is to end waits for
// requests in hand. One that is still being sent then is cut off: it was not
// acknowledged, and the client sends it elsewhere.
const Grace = 5 * time.Second

// heapFloor is memory that is never touched, and so is never had from the system,
// but which the garbage collector counts. What requests leave behind is much and
// what they keep is little: without it, 10,000 requests a second of a small frame
// have the heap collected 25 times a second, and one in a hundred waits for that.
const heapFloor = 32 << 20

// The phases of a stage.
const (
	phaseStarting int32 = iota
	phaseServing
	phaseStopping
)

// New returns a stage that publishes to publisher, whose Close stays the
// caller's. One call carries a request's frames.
func New(cfg Config, publisher bus.Publisher, registerer prometheus.Registerer, logger *slog.Logger) (*Stage, error) {
	in, err := newIntake(cfg, publisher, registerer, logger)
	if err != nil {
		return nil, err
	}
	s := &Stage{
		intake:   in,
		slots:    make(chan struct{}, cfg.MaxInFlight),
		storing:  make(chan struct{}, cfg.MaxTensorRequests),
		spools:   byteBudget{limit: cfg.MaxSpoolBytes},
		discards: make(chan struct{}, discardConnections),
		codings:  newCodings(),
		grace:    Grace,
	}
	s.cut, s.cutOff = context.WithCancel(context.Background())
	s.discarding, s.endDiscarding = context.WithCancel(context.Background())
	s.frames = s.memory.share(cfg.MaxMemoryBytes / 4)
	s.decoders.New = func() any { return newDecoders(cfg) }
	s.metrics = newRequestMetrics(func() float64 { return float64(len(s.slots)) })
	err = errors.Join(s.metrics.register(registerer), registerer.Register(s.frames.gauge("frames")))
	if cfg.Tensors != nil {
		s.tensors = s.memory.share(cfg.MaxMemoryBytes / 8)
		err = errors.Join(err, registerer.Register(s.tensors.gauge("tensors")))
	}
	if err != nil {
		return nil, fmt.Errorf("ingest: register metrics: %w", err)
	}
	return s, nil
}

// Handler serves POST /v1/frames and PUT /v1/tensors, and a problem everywhere else.
// It is no http.ServeMux, which redirects by itself and leaves the body unread.
func (s *Stage) Handler() http.Handler {
	return watchBody(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/frames":
			s.serveFrames(w, r)
		case "/v1/tensors":
			s.serveTensors(w, r)
		default:
			s.answer(w, r, time.Now(), 0, nil, refuse(reasonPath, "%.100q is not served; frames are taken by POST /v1/frames, tensors by PUT /v1/tensors", r.URL.Path))
		}
	}))
}

// Run serves on listener until ctx ends, and then until the requests in hand
// are answered, at most for the publish timeout and Grace, and the publisher has
// returned. It closes the listener.
func (s *Stage) Run(ctx context.Context, listener net.Listener) error {
	floor := make([]byte, heapFloor)
	defer runtime.KeepAlive(floor)
	// A request in hand outlives ctx: it is drained.
	base := context.WithoutCancel(ctx)
	server := &http.Server{
		Handler:           s.Handler(),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: min(s.cfg.ReadTimeout, 10*time.Second),
		ReadTimeout:       s.cfg.ReadTimeout,
		WriteTimeout:      s.cfg.ReadTimeout + s.cfg.StoreTimeout + s.cfg.PublishTimeout + 5*time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	watching, endWatching := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { s.watchStore(watching) })
	served := make(chan error, 1)
	s.phase.Store(phaseServing) // connections queue at the listener already
	go func() { served <- server.Serve(listener) }()
	s.logger.Info("ingest takes frames", "address", listener.Addr().String(), "topic", s.cfg.Topic, "instance", s.cfg.Instance)

	var failed error
	select {
	case err := <-served:
		failed = fmt.Errorf("serve HTTP: %w", err)
		served <- err
	case <-ctx.Done():
	}
	s.phase.Store(phaseStopping)
	endWatching()
	if err := s.drain(base, server); err != nil && failed == nil {
		failed = err
	}
	if err := <-served; failed == nil && !errors.Is(err, http.ErrServerClosed) {
		failed = fmt.Errorf("serve HTTP: %w", err)
	}
	watch.Wait()
	return failed
}

// drain returns once no request is in hand and no Publish is under way.
func (s *Stage) drain(ctx context.Context, server *http.Server) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.PublishTimeout+s.grace)
	defer cancel()
	s.endDiscarding()
	err := server.Shutdown(ctx)
	if err != nil {
		s.cutOff()
		err = errors.Join(fmt.Errorf("requests in hand were cut off: %w", err), server.Close())
	}
	for _, slots := range []chan struct{}{s.slots, s.storing} {
		// Whoever holds all the slots knows that nobody else holds one, nor will:
		// a request that was cut off finds none.
		for range cap(slots) {
			slots <- struct{}{}
		}
	}
	return err
}

// Ready returns why the stage takes no frames, or nil. A bus that is down does
// not show here: each request finds out, and without requests nobody would find
// that it is back.
func (s *Stage) Ready() error {
	switch s.phase.Load() {
	case phaseStarting:
		return errors.New("not listening yet")
	case phaseStopping:
		return errors.New("stopping")
	}
	return nil
}

// Counts returns what the stage has done so far.
func (s *Stage) Counts() Counts {
	return Counts{
		Requests:    s.metrics.requests.Load(),
		Refused:     s.metrics.refused.Load(),
		Frames:      s.counts.frames.Load(),
		Readings:    s.counts.readings.Load(),
		Claims:      s.counts.claims.Load(),
		Unconfirmed: s.counts.unconfirmed.Load(),
	}
}
