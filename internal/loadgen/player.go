// Package loadgen plays a recorded run, or load that it makes up, into ingest
// over HTTP, as a trainer would: each producer on its own path, its frames in
// order, none ahead of its time.
package loadgen

import (
	"context"
	"errors"
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

// Config says what to play, where to and how fast.
type Config struct {
	// URL is ingest's, e.g. http://127.0.0.1:8080.
	URL string
	// Speed scales the intervals between frames: 10 plays ten times as fast
	// as recorded. MaxSpeed plays as fast as ingest takes it.
	Speed float64
	// Recording is an Avro object container file, read to its end by New. It
	// is kept in memory.
	Recording io.Reader
	// Synthetic is the load to make up where Recording is nil.
	Synthetic Synthetic
	// Run is the id that all frames get; empty: a fresh ULID.
	Run oona.RunID
	// BatchBytes and BatchFrames bound a request; a frame is never divided.
	BatchBytes, BatchFrames int
	// RequestTimeout bounds one attempt, DeliveryTimeout all attempts at a request.
	RequestTimeout, DeliveryTimeout time.Duration
	// Client sends the requests; nil: one of the player's own.
	Client *http.Client
	Logger *slog.Logger
}

// MaxSpeed is the speed at which no frame waits: each is observed when it is sent.
const MaxSpeed = 0

// DefaultConfig is to play at the recorded speed.
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

// ParseSpeed reads a speed as it is given on a command line: a factor, or max.
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
		return errors.New("player: no URL; give ingest's, such as http://127.0.0.1:8080")
	case !(c.Speed >= 0) || math.IsInf(c.Speed, 0):
		return fmt.Errorf("player: speed is %v; give a number above 0, or 0 for as fast as possible", c.Speed)
	case c.BatchBytes < 1 || c.BatchFrames < 1:
		return fmt.Errorf("player: a request of %d bytes and %d frames holds nothing; give at least 1 of both", c.BatchBytes, c.BatchFrames)
	case c.RequestTimeout <= 0 || c.DeliveryTimeout <= 0:
		return fmt.Errorf("loadgen: request timeout %v and delivery timeout %v must be above 0", c.RequestTimeout, c.DeliveryTimeout)
	}
	return nil
}

// Counts are what a player has done so far.
type Counts struct {
	Sent         int64         // frames whose request was begun, each once
	Acknowledged int64         // frames that ingest has taken
	Refused      int64         // frames that ingest will not take
	Retries      int64         // requests sent again
	Readings     int64         // in the acknowledged frames
	Tensors      int64         // in the acknowledged frames
	Bytes        int64         // of frames sent, again for a retry
	Events       int64         // in the recording; they are not sent
	Behind       time.Duration // the furthest that a frame was sent after it was due
}

// Unanswered returns the frames that ingest may or may not have taken: their
// last request failed without an answer.
func (c Counts) Unanswered() int64 { return c.Sent - c.Acknowledged - c.Refused }

// Result is how a run of the player ended.
type Result struct {
	Counts
	Run     oona.RunID
	Elapsed time.Duration
}

// Player plays one run. Counts may be asked while it runs.
type Player struct {
	cfg     Config
	sources []source
	counts  counters
}

type counters struct {
	sent, acknowledged, refused, retries, readings, tensors, bytes, events, behind atomic.Int64
}

// source is the frames of one producer.
type source interface {
	// next returns the next frame and how long after the start it is due at
	// the recorded speed; false: there are no more. Run, Epoch and ObservedAt
	// are the caller's to set, the rest is the source's until its next call.
	next() (frame *oona.Frame, due oona.Micros, more bool)
}

// New reads the recording, or prepares the load, and checks the configuration.
func New(cfg Config) (*Player, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Run == "" {
		cfg.Run = oona.RunID(ulid.Make().String())
	}
	if err := oona.CheckID("run", string(cfg.Run)); err != nil {
		return nil, fmt.Errorf("player: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Player{cfg: cfg}
	if cfg.Recording != nil {
		recording, err := read(cfg.Recording)
		if err != nil {
			return nil, fmt.Errorf("player: %w", err)
		}
		p.sources = recording.sources()
		p.counts.events.Store(recording.events)
		return p, nil
	}
	if err := cfg.Synthetic.validate(); err != nil {
		return nil, fmt.Errorf("player: %w", err)
	}
	p.sources = cfg.Synthetic.sources()
	return p, nil
}

// Run plays to the end, or until ctx is done: then the requests under way are
// answered first, and the error is ctx's cause. It is called once.
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
	err := group.Wait()
	return Result{Counts: p.Counts(), Run: p.cfg.Run, Elapsed: time.Since(start)}, err
}

// Counts returns what has been done so far.
func (p *Player) Counts() Counts {
	c := &p.counts
	// Sent is read last, so that Unanswered is never below zero.
	counts := Counts{
		Acknowledged: c.acknowledged.Load(),
		Refused:      c.refused.Load(),
		Retries:      c.retries.Load(),
		Readings:     c.readings.Load(),
		Tensors:      c.tensors.Load(),
		Bytes:        c.bytes.Load(),
		Events:       c.events.Load(),
		Behind:       time.Duration(c.behind.Load()),
	}
	counts.Sent = c.sent.Load()
	return counts
}
