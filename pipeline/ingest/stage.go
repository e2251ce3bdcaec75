package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/forward"
	"github.com/morphogenetic/oona/intake"
)

// Stage accepts frames, events and tensors over HTTP. It publishes frames and events, and stores
// tensors.
type Stage struct {
	*sink
	metrics *requestMetrics

	slots    chan struct{} // one for each request, from when its body was received until it is published
	storing  chan struct{} // one for each request that waits for the tensor store
	lookups  chan struct{} // one for each request that waits for the schema registry
	frames   *share        // of memory, for requests with frames or events until they are published
	tensors  *share        // of memory, for uploaded tensors until they are stored
	spools   byteBudget    // for the same tensors, in memory and in $TMPDIR
	cut      context.Context
	cutOff   context.CancelFunc // cancels cut, when requests have not ended after the grace
	discards chan struct{}      // one for each refused request whose body is discarded
	sharing  *sharing           // divides all of these among clients

	connections *connections

	discarding    context.Context
	endDiscarding context.CancelFunc // called when the stage stops

	forward *forward.Forwarder // nil: there is no spool

	decoders sync.Pool // of *intake.Decoder
	codings  *codings
	phase    atomic.Int32
	grace    time.Duration // see Grace; tests shorten it
}

// Grace is how long, beyond the publish timeout, a stage that stops waits for requests
// in progress. A request that is still being received then is cut off. It was not
// acknowledged, so the client sends it to another ingest.
const Grace = 5 * time.Second

// heapFloor returns the size of an allocation that is never used. The system provides no memory
// for it, but the garbage collector counts it, and so runs less often. Requests allocate much and
// keep little: without it, 10,000 requests per second with a small frame cause 25 collections per
// second, and one request in a hundred waits for one. With 32 MiB, a client that floods ingest
// still caused about one collection per second, which determined the 99th percentile of the
// others. Under a memory limit it is at most a sixteenth of that.
func heapFloor() int64 { return min(96<<20, debug.SetMemoryLimit(-1)/16) }

// The phases of a stage.
const (
	phaseStarting int32 = iota
	phaseServing
	phaseStopping
)

// New returns a stage that publishes to publisher, with one call for the frames of a
// request. The caller closes the publisher.
func New(cfg Config, publisher bus.Publisher, registerer prometheus.Registerer, logger *slog.Logger) (*Stage, error) {
	common, err := newSink(cfg, publisher, registerer, logger)
	if err != nil {
		return nil, err
	}
	s := &Stage{
		sink:     common,
		slots:    make(chan struct{}, cfg.MaxInFlight),
		storing:  make(chan struct{}, cfg.MaxTensorRequests),
		lookups:  make(chan struct{}, max(1, cfg.MaxInFlight/4)),
		spools:   byteBudget{limit: cfg.MaxUploadBytes},
		discards: make(chan struct{}, discardConnections),
		codings:  newCodings(),
		grace:    Grace,
	}
	s.sharing = newSharing(cfg.ClientShare, s.slots, s.storing, s.discards, s.lookups)
	s.sharing.rates = rates{float64(cfg.ClientRequests), float64(cfg.ClientBytes)}
	s.connections = newConnections(cfg.MaxConnections, s.sharing)
	s.cut, s.cutOff = context.WithCancel(context.Background())
	s.sharing.cut = s.cut
	s.discarding, s.endDiscarding = context.WithCancel(context.Background())
	s.frames = s.memory.share(cfg.MaxMemoryBytes / 4)
	s.decoders.New = func() any { return intake.NewDecoder(common.intake.Frame) }
	s.metrics = newRequestMetrics(func() float64 { return float64(len(s.slots)) })
	m := s.metrics
	err = register(registerer, m.requestsTotal, m.rejectedTotal, m.refusalsCut, m.requestSeconds, m.publishSeconds, m.storeSeconds, m.inFlight, s.frames.gauge("frames"), s.memory.waits, s.sharing.waits, s.sharing.gauge(), s.connections.refused, s.connections.gauge())
	if cfg.Tensors != nil {
		s.tensors = s.memory.share(cfg.MaxMemoryBytes / 8)
		err = errors.Join(err, registerer.Register(s.tensors.gauge("tensors")))
	}
	if err != nil {
		return nil, fmt.Errorf("ingest: register metrics: %w", err)
	}
	if cfg.Spool.Open != nil {
		if s.forward, err = forward.New(s.forwarding(logger), cfg.Spool.Open, registerer); err != nil {
			return nil, fmt.Errorf("ingest: %w", err)
		}
	}
	return s, nil
}

// ProbeStore must be called before Run. It probes the tensor store, if there is one, and returns
// an error if an operator must act before the store can work. It returns no error if the store is
// down or full. Ingest can start then, since most frames do not need the store, and Run probes it
// again.
func (s *Stage) ProbeStore(ctx context.Context) error {
	if s.cfg.Tensors == nil {
		return nil
	}
	err := s.probeStore(ctx)
	if needsOperator(err) {
		return fmt.Errorf("--tensor-store: %w", err)
	}
	return nil
}

const (
	framesPath  = "/v1/frames"
	eventsPath  = "/v1/events"
	tensorsPath = "/v1/tensors"
)

// Handler serves POST /v1/frames, POST /v1/events, PUT /v1/tensors and /readyz, and answers other
// paths with a problem. It is not an http.ServeMux, because that redirects and does not read the
// body. If only some clients have access, the others get 401 for everything but /readyz.
func (s *Stage) Handler() http.Handler {
	return watchBody(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == readyPath && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			s.serveReady(w)
			return
		}
		began := time.Now()
		who, refused := s.identify(w, r)
		join := s.sharing.join
		if r.Method != http.MethodPost && r.Method != http.MethodPut {
			join = s.sharing.visit
		}
		by := join(clientKeyOf(who, r, refused != nil), began)
		defer by.leave()
		if body, ok := r.Body.(*requestBody); ok {
			body.by = by
		}
		if _, ok := by.pay(r.Context(), nil, requestCost, shareWait); !ok && refused == nil {
			refused = s.timeTaken(by)
		}
		if refused == nil {
			refused = s.overRate(by)
		}
		if refused != nil { // it is not traced, so that unknown clients cannot fill the queue of spans
			s.answer(w, r, who, began, nil, 0, nil, refused)
			return
		}
		trace := s.trace(r, began)
		switch r.URL.Path {
		case framesPath, eventsPath:
			s.serveFrames(w, r, who, began, trace)
		case tensorsPath:
			s.serveTensors(w, r, who, began, trace)
		default:
			s.answer(w, r, who, began, trace, 0, nil, intake.Refuse(reasonPath, "%.100q is not served; send frames with POST /v1/frames, events with POST /v1/events, tensors with PUT /v1/tensors", r.URL.Path))
		}
	}))
}

// Run serves on listener until ctx ends. Then it waits until the requests in progress are
// answered, at most for the publish timeout and Grace, and until the publisher has returned. As
// long as the bus takes it, it sends the spool. It closes the listener.
func (s *Stage) Run(ctx context.Context, listener net.Listener) error {
	floor := make([]byte, heapFloor())
	defer runtime.KeepAlive(floor)
	// Requests in progress are completed after ctx has ended.
	base := context.WithoutCancel(ctx)
	server := &http.Server{
		Handler:           s.Handler(),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: min(s.cfg.ReadTimeout, 10*time.Second),
		ReadTimeout:       s.cfg.ReadTimeout,
		WriteTimeout:      s.cfg.ReadTimeout + 6*shareWait + turnWait + memoryWait + s.cfg.StoreTimeout + s.cfg.PublishTimeout + 5*time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnState:         s.changed,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	stopping, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	var failed error
	s.phase.Store(phaseServing) // the listener accepts connections already
	running.Go(func() {
		defer stop()
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed = fmt.Errorf("serve HTTP: %w", err)
		}
	})
	running.Go(func() { s.watchStore(stopping) })
	running.Go(func() { s.sharing.watchProcessors(stopping) })
	if s.forward != nil {
		running.Go(func() { failed = errors.Join(failed, s.forward.Run(stopping)) })
	}
	if s.forward != nil && !s.cfg.Spool.Open.Empty() {
		s.logger.Info("the spool has requests from before this start, which are sent now", "directory", s.cfg.Spool.Directory, "requests", s.cfg.Spool.Open.Stats().Records)
	}
	s.logger.Info("ingest accepts frames", "address", listener.Addr().String(), "topic", s.cfg.Topic, "instance", s.cfg.Instance)

	<-stopping.Done()
	until := time.Now().Add(s.cfg.Spool.Drain)
	s.phase.Store(phaseStopping)
	stop()
	cutOff := s.drain(base, server)
	running.Wait()
	s.drainSpool(base, until)
	return errors.Join(failed, cutOff)
}

// drain returns when no request is in progress and no Publish is running.
func (s *Stage) drain(ctx context.Context, server *http.Server) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.PublishTimeout+s.grace)
	defer cancel()
	s.endDiscarding()
	err := server.Shutdown(ctx)
	if err != nil {
		s.cutOff()
		err = errors.Join(fmt.Errorf("requests were still in progress at the end, and their connections were closed: %w", err), server.Close())
	}
	for _, slots := range []chan struct{}{s.slots, s.storing} {
		// When all slots are taken here, no request has one, and none gets one.
		for range cap(slots) {
			slots <- struct{}{}
		}
	}
	if s.forward != nil {
		s.forward.Wait()
	}
	return err
}

// drainSpool sends the spool before the stage ends, as long as the bus takes it.
func (s *Stage) drainSpool(ctx context.Context, until time.Time) {
	if s.forward == nil || s.cfg.Spool.Open.Empty() {
		return
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	if left := s.forward.Drain(ctx); left > 0 {
		s.logger.Warn("requests are left in the spool; start an ingest with this directory to send them, or use oona spool drain",
			"directory", s.cfg.Spool.Directory, "requests", left)
	}
}

// Counts returns what the stage has done so far.
func (s *Stage) Counts() Counts {
	return Counts{
		Requests:    s.metrics.requests.Load(),
		Refused:     s.metrics.refused.Load(),
		Frames:      s.counts.frames.Load(),
		Events:      s.counts.events.Load(),
		Readings:    s.counts.readings.Load(),
		Claims:      s.counts.claims.Load(),
		Unconfirmed: s.counts.unconfirmed.Load(),
	}
}
