package export

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Transitions shows the transitions of seeds to Prometheus, of each layer: how often seeds
// germinated, began to be grafted, fossilized and were culled, and when that was last. The
// other transitions, which are most, are not shown. It also reads the ends of runs, for a Stage.
//
// It reads the topics of events. An exporter runs without them, so it looks for them again
// and again, and shows nothing until they are there.
type Transitions struct {
	cfg    Config
	topics []string
	logger *slog.Logger
	began  time.Time // events before are not counted, as an earlier exporter has counted them

	mu     sync.Mutex
	runs   map[oona.RunID]*runTransitions
	size   int // layers of all runs
	recent recent

	total, last                 *prometheus.Desc
	undecodable, beyond, future prometheus.Counter
	dropped                     atomic.Int64 // what undecodable counts
}

// runTransitions are those of a run.
type runTransitions struct {
	layers map[oona.LayerID]*transitions
	heard  time.Time // when its latest event was appended
}

// transitions are those of a layer.
type transitions struct {
	seen   [oona.StateCount]bool
	counts [oona.StateCount]int64
	last   [oona.StateCount]oona.Micros // times of the last events; 0 if no time is known
	heard  time.Time                    // when its latest event was appended
	future bool                         // there was an event of the future
}

// identity is the identity of an event.
type identity struct {
	run      oona.RunID
	layer    oona.LayerID
	seed     oona.SeedID
	sequence int64
}

// recent has the hashes of the last events, so that repeats are not counted: what was not
// acknowledged is repeated soon after, in requests of many events.
type recent struct {
	seed maphash.Seed
	held map[uint64]struct{}
	ring []uint64
	next int // the oldest, when the ring is full
}

// mostRecent is how many events are remembered.
const mostRecent = 1 << 16

// repeats reports whether an event was seen before, and remembers it.
func (r *recent) repeats(e identity) bool {
	hash := maphash.Comparable(r.seed, e)
	if _, held := r.held[hash]; held {
		return true
	}
	r.held[hash] = struct{}{}
	if len(r.ring) < mostRecent {
		r.ring = append(r.ring, hash)
		return false
	}
	delete(r.held, r.ring[r.next])
	r.ring[r.next] = hash
	r.next = (r.next + 1) % mostRecent
	return false
}

// NewTransitions returns Transitions within the limits of cfg, and registers them.
func NewTransitions(cfg Config, registerer prometheus.Registerer, logger *slog.Logger) (*Transitions, error) {
	t := cfg.Topics
	x := &Transitions{
		cfg: cfg, topics: []string{t.Germinated, t.Grafted, t.Fossilized, t.Culled, t.RunEnded}, logger: logger, began: time.Now(),
		runs:        make(map[oona.RunID]*runTransitions),
		recent:      recent{seed: maphash.MakeSeed(), held: make(map[uint64]struct{})},
		total:       prometheus.NewDesc("kasmina_layer_transitions_total", "Events of seeds that entered the state since the exporter started.", []string{labelRun, labelLayer, labelState}, nil),
		last:        prometheus.NewDesc("kasmina_layer_transition_timestamp_seconds", "When a seed of the layer last entered the state, according to its event.", []string{labelRun, labelLayer, labelState}, nil),
		undecodable: prometheus.NewCounter(prometheus.CounterOpts{Name: "oona_exporter_undecodable_events_total", Help: "Records of the topics of events that are not events."}),
		beyond:      prometheus.NewCounter(prometheus.CounterOpts{Name: "oona_exporter_hidden_events_total", Help: "Events of layers, and ends of runs, that are not shown because the limits of runs or layers are reached."}),
		future:      prometheus.NewCounter(prometheus.CounterOpts{Name: "oona_exporter_future_events_total", Help: "Events whose time is more than a minute later than their append time. They are counted as transitions, but their time is not shown. The end of a run is not shown then."}),
	}
	for _, c := range []prometheus.Collector{x, x.undecodable, x.beyond, x.future} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("export: register metrics: %w", err)
		}
	}
	return x, nil
}

// retryTopic is how often a topic that cannot be read is tried again.
const retryTopic = 30 * time.Second

// Run reads the topics until ctx ends or one of them cannot be read on. It calls ended with the
// end of each run and the time at which that was appended: Stage.End, or a function like it.
func (x *Transitions) Run(ctx context.Context, log bus.Reader, ended func(e *oona.RunEnd, appended, now time.Time) (kept bool)) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, topic := range x.topics {
		take, missing := x.take, "transitions of seeds are not shown, as their topic cannot be read; it is tried again"
		if topic == x.cfg.Topics.RunEnded {
			take = func(msg *message.Message, now time.Time) { x.takeEnd(msg, ended, now) }
			missing = "ends of runs are not shown, as their topic cannot be read; it is tried again"
		}
		group.Go(func() error { return x.read(ctx, log, topic, take, missing) })
	}
	return group.Wait()
}

func (x *Transitions) read(ctx context.Context, log bus.Reader, topic string, take func(*message.Message, time.Time), missing string) error {
	messages, err := log.Subscribe(ctx, topic)
	for first := true; err != nil; first = false {
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, bus.ErrClosed) {
			return fmt.Errorf("export: %w", err)
		}
		if first {
			x.logger.Warn(missing, "topic", topic, "err", err)
		}
		if !bus.Pause(ctx, retryTopic) {
			return nil
		}
		messages, err = log.Subscribe(ctx, topic)
	}
	for msg := range messages {
		take(msg, time.Now())
		msg.Ack()
	}
	if ctx.Err() == nil {
		return fmt.Errorf("export: %s: %w", topic, errLogEnded)
	}
	return nil
}

func (x *Transitions) take(msg *message.Message, now time.Time) {
	at, err := bus.PositionOf(msg)
	var e oona.SeedEvent
	if err == nil {
		err = avro.Alone(avro.DecodeEvent(msg.Payload, &e))
	}
	if err == nil {
		err = e.Validate()
	}
	if err != nil {
		x.drop(err, "topic", at.Topic, "partition", at.Partition, "offset", at.Offset)
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	appended := at.Appended.Time()
	if appended.After(now) { // by the clock of another machine
		appended = now
	}
	y := x.layer(e.Run, e.Layer, appended, now)
	if y == nil {
		x.beyond.Inc()
		return
	}
	if x.recent.repeats(identity{e.Run, e.Layer, e.Seed, e.Sequence}) {
		return
	}
	y.seen[e.To] = true
	if e.Future(at.Appended) { // a frame like that is not folded
		x.future.Inc()
		if !y.future {
			x.logger.Warn("the time of an event is ahead of its append, so it is not shown; set the trainer's clock, or correct the unit", "run", e.Run, "layer", e.Layer, "seed", e.Seed, "at", e.At.Time(), "appended", at.Appended.Time())
		}
		y.future = true
	} else {
		y.last[e.To] = max(y.last[e.To], e.At)
	}
	if !at.Appended.Time().Before(x.began.Truncate(time.Millisecond)) {
		y.counts[e.To]++
	}
}

func (x *Transitions) takeEnd(msg *message.Message, ended func(e *oona.RunEnd, appended, now time.Time) bool, now time.Time) {
	at, err := bus.PositionOf(msg)
	var e oona.RunEnd
	if err == nil {
		err = avro.Alone(avro.DecodeRunEnd(msg.Payload, &e))
	}
	if err == nil {
		err = e.Validate()
	}
	if err != nil {
		x.drop(err, "topic", at.Topic, "partition", at.Partition, "offset", at.Offset)
		return
	}
	if e.At-at.Appended > oona.MaxEventSkew {
		x.future.Inc()
		x.logger.Warn("the time of the end of a run is ahead of its append, so the run is not shown as ended; set the trainer's clock, or correct the unit", "run", e.Run, "at", e.At.Time(), "appended", at.Appended.Time())
		return
	}
	appended := at.Appended.Time()
	if appended.After(now) { // by the clock of another machine
		appended = now
	}
	if !ended(&e, appended, now) {
		x.beyond.Inc()
	}
}

// drop counts a record that is not an event, and logs the 1st, 2nd, 4th, 8th and so on, as
// Stage.drop does.
func (x *Transitions) drop(err error, where ...any) {
	x.undecodable.Inc()
	n := x.dropped.Add(1)
	if n&(n-1) == 0 {
		x.logger.Warn("skipped a record that is not an event", append(where, "err", err, "count", n)...)
	}
}

// layer returns a layer of which an event was appended then, or nil if there are too many. As
// with rollups, runs that are silent make room for others.
func (x *Transitions) layer(run oona.RunID, layer oona.LayerID, appended, now time.Time) *transitions {
	r := x.runs[run]
	for r == nil && len(x.runs) >= x.cfg.MaxRuns {
		if !x.displace(run, appended, now) {
			return nil
		}
	}
	if r == nil || r.layers[layer] == nil {
		if r != nil && len(r.layers) >= x.cfg.MaxLayers {
			return nil
		}
		for x.size >= x.cfg.MaxTotalLayers {
			if !x.displace(run, appended, now) {
				return nil
			}
		}
	}
	if r == nil {
		r = &runTransitions{layers: make(map[oona.LayerID]*transitions)}
		x.runs[run] = r
	}
	y := r.layers[layer]
	if y == nil {
		y = new(transitions)
		r.layers[layer] = y
		x.size++
	}
	if appended.After(r.heard) {
		r.heard = appended
	}
	if appended.After(y.heard) {
		y.heard = appended
	}
	return y
}

// displace removes the run that has been silent for the longest time, if its latest event was
// appended before the given time. It returns false if there is no such run besides one.
func (x *Transitions) displace(besides oona.RunID, before, now time.Time) bool {
	var longest oona.RunID
	for id, r := range x.runs {
		if id == besides || now.Sub(r.heard) <= x.cfg.SilentAfter || !r.heard.Before(before) {
			continue
		}
		if first := x.runs[longest]; first == nil || r.heard.Before(first.heard) {
			longest = id
		}
	}
	if longest == "" {
		return false
	}
	x.size -= len(x.runs[longest].layers)
	delete(x.runs, longest)
	return true
}

// forget removes layers without an event for as long as runs are kept.
func (x *Transitions) forget(now time.Time) {
	for run, r := range x.runs {
		for id, y := range r.layers {
			if now.Sub(y.heard) > x.cfg.RunKept {
				delete(r.layers, id)
				x.size--
			}
		}
		if len(r.layers) == 0 {
			delete(x.runs, run)
		}
	}
}

// Describe implements prometheus.Collector.
func (x *Transitions) Describe(ch chan<- *prometheus.Desc) {
	ch <- x.total
	ch <- x.last
}

// Collect implements prometheus.Collector.
func (x *Transitions) Collect(ch chan<- prometheus.Metric) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget(time.Now())
	for run, r := range x.runs {
		for layer, y := range r.layers {
			for state, at := range y.last {
				labels := []string{string(run), string(layer), oona.State(state).String()}
				if y.seen[state] {
					ch <- prometheus.MustNewConstMetric(x.total, prometheus.CounterValue, float64(y.counts[state]), labels...)
				}
				if at != 0 {
					ch <- prometheus.MustNewConstMetric(x.last, prometheus.GaugeValue, seconds(at), labels...)
				}
			}
		}
	}
}
