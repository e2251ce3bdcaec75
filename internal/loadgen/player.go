// Package loadgen sends a recorded run, or synthetic load, to ingest over HTTP, like
// a trainer: each producer sends its frames in order, and no frame before it is due.
package loadgen

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
)

// Config configures a Player.
type Config struct {
	// URL is the address of ingest, for example http://127.0.0.1:8080.
	URL string
	// Speed divides the intervals between frames: 10 is ten times as fast as
	// recorded. MaxSpeed is as fast as ingest accepts the frames.
	Speed float64
	// Recording is an Avro object container file. New reads it into memory.
	Recording io.Reader
	// Synthetic is the load to generate if Recording is nil.
	Synthetic Synthetic
	// Events says that the events of the recording are sent, too. Ingest must have their
	// topics.
	Events bool
	// Run is the ID that all frames and events get. If it is empty, they get a new ULID.
	Run oona.RunID
	// BatchBytes and BatchFrames limit a request. A frame is never divided.
	BatchBytes, BatchFrames int
	// RequestTimeout limits one attempt, DeliveryTimeout all attempts of a request.
	RequestTimeout, DeliveryTimeout time.Duration
	// Client sends the requests. If it is nil, the Player makes one.
	Client *http.Client
	Logger *slog.Logger
}

// MaxSpeed is the speed at which frames do not wait. The event time of a frame is then
// the time at which it is sent.
const MaxSpeed = 0

// DefaultConfig returns a configuration that plays at the recorded speed.
func DefaultConfig() Config {
	return Config{
		Speed:           1,
		BatchBytes:      1 << 20,
		BatchFrames:     256,
		RequestTimeout:  10 * time.Second,
		DeliveryTimeout: 2 * time.Minute,
		Logger:          slog.Default(),
	}
}

// ParseSpeed parses a speed of a command line: a factor, or max.
func ParseSpeed(text string) (float64, error) {
	if text == "max" {
		return MaxSpeed, nil
	}
	speed, err := strconv.ParseFloat(text, 64)
	if err != nil || !(speed > 0) || math.IsInf(speed, 0) {
		return 0, fmt.Errorf("speed %q: give a number above 0, such as 10, or max", text)
	}
	return speed, nil
}

func (c Config) validate() error {
	switch {
	case c.URL == "":
		return &oona.FieldError{Field: "URL", Reason: "is empty; give the URL of ingest, such as http://127.0.0.1:8080"}
	case !(c.Speed >= 0) || math.IsInf(c.Speed, 0):
		return &oona.FieldError{Field: "speed", Reason: fmt.Sprintf("is %v; give a number above 0, or 0 for as fast as possible", c.Speed)}
	case c.BatchBytes < 1 || c.BatchFrames < 1:
		return &oona.FieldError{Field: "batch", Reason: fmt.Sprintf("is at most %d bytes and %d frames; give at least 1 of both", c.BatchBytes, c.BatchFrames)}
	case c.RequestTimeout <= 0 || c.DeliveryTimeout <= 0:
		return &oona.FieldError{Field: "timeout", Reason: fmt.Sprintf("of a request is %v, and of its delivery %v; give times above 0", c.RequestTimeout, c.DeliveryTimeout)}
	}
	return nil
}

// Counts are the counts of a Player so far.
type Counts struct {
	Sent         int64         // frames, each once
	Acknowledged int64         // frames that ingest accepted
	Refused      int64         // frames that ingest refused
	Retries      int64         // requests sent again
	Readings     int64         // in the acknowledged frames
	Tensors      int64         // in the acknowledged frames
	Bytes        int64         // of requests, including retries
	Behind       time.Duration // the greatest delay of a frame after it was due

	Events             int64 // in the recording
	EventsSent         int64 // each once
	EventsAcknowledged int64 // that ingest accepted
	Ended              int64 // 1 if ingest has accepted the end of the run
}

// Unanswered returns the number of frames whose last request failed without an answer.
// Ingest may have accepted them.
func (c Counts) Unanswered() int64 { return c.Sent - c.Acknowledged - c.Refused }

// Result is the outcome of Run.
type Result struct {
	Counts
	Run     oona.RunID
	Elapsed time.Duration
}

// Player sends one run. Counts may be called while it runs.
type Player struct {
	cfg     Config
	sources []source
	events  []*oona.SeedEvent // of the recording
	first   oona.Micros       // time of its start
	counts  counters
}

type counters struct {
	sent, acknowledged, refused, retries, readings, tensors, bytes, events, eventsSent, eventsAcknowledged, ended, behind atomic.Int64
}

// source has the frames of one producer.
type source interface {
	// next returns the next frame and its time after the start at the recorded
	// speed. It returns false after the last frame. The caller sets Run, Epoch and
	// ObservedAt. The frame is valid until the next call.
	next() (frame *oona.Frame, due oona.Micros, more bool)
}

// New checks the configuration, and reads the recording or prepares the load.
func New(cfg Config) (*Player, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("loadgen: %w", err)
	}
	if cfg.Run == "" {
		cfg.Run = oona.RunID(ulid.Make().String())
	}
	if err := oona.CheckID("run", string(cfg.Run)); err != nil {
		return nil, fmt.Errorf("loadgen: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Player{cfg: cfg}
	if cfg.Recording != nil {
		recording, err := read(cfg.Recording)
		if err != nil {
			return nil, fmt.Errorf("loadgen: %w", err)
		}
		p.sources = recording.sources()
		p.events, p.first = recording.events, recording.first
		p.counts.events.Store(int64(len(recording.events)))
		return p, nil
	}
	if err := cfg.Synthetic.validate(); err != nil {
		return nil, fmt.Errorf("loadgen: synthetic load: %w", err)
	}
	p.sources = cfg.Synthetic.sources()
	return p, nil
}

// Run sends all frames, and, if it is told to, the events and the end of the run. When ctx is done, it waits for the answers to the requests in
// flight, and returns the cause of ctx. It must be called once.
func (p *Player) Run(ctx context.Context) (Result, error) {
	client := p.cfg.Client
	if client == nil {
		transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: len(p.sources)}
		defer transport.CloseIdleConnections()
		client = &http.Client{Transport: transport}
	}
	start := time.Now()
	group, groupCtx := errgroup.WithContext(ctx)
	for _, source := range p.sources {
		one := &producer{
			sender: sender{cfg: &p.cfg, client: client, counts: &p.counts},
			source: source,
			clock:  newClock(start, p.cfg.Speed),
			epoch:  oona.MicrosOf(start),
		}
		group.Go(func() error { return one.play(groupCtx) })
	}
	if p.cfg.Events {
		teller := &storyteller{sender: sender{cfg: &p.cfg, client: client, counts: &p.counts}, events: p.events, first: p.first, clock: newClock(start, p.cfg.Speed)}
		group.Go(func() error { return teller.play(groupCtx) })
	}
	err := group.Wait()
	if err == nil && p.cfg.Events {
		teller := &storyteller{sender: sender{cfg: &p.cfg, client: client, counts: &p.counts}}
		err = teller.end(ctx)
	}
	return Result{Counts: p.Counts(), Run: p.cfg.Run, Elapsed: time.Since(start)}, err
}

// Counts returns the counts so far.
func (p *Player) Counts() Counts {
	c := &p.counts
	// Those that were sent are loaded last, so that no difference is negative.
	counts := Counts{
		Acknowledged: c.acknowledged.Load(),
		Refused:      c.refused.Load(),
		Retries:      c.retries.Load(),
		Readings:     c.readings.Load(),
		Tensors:      c.tensors.Load(),
		Bytes:        c.bytes.Load(),
		Behind:       time.Duration(c.behind.Load()),

		Events:             c.events.Load(),
		EventsAcknowledged: c.eventsAcknowledged.Load(),
		Ended:              c.ended.Load(),
	}
	counts.Sent, counts.EventsSent = c.sent.Load(), c.eventsSent.Load()
	return counts
}
