package scenarios

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"sync"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	kafkabus "github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/schemas/avro"
)

// seedsAtATime is how many seeds of a run live at the same time.
const seedsAtATime = 20

// seed is a seed of a run, in the layer that all of them are in.
type seed struct {
	run    oona.RunID
	number oona.SeedID
}

const layerOfSeeds = "layer.0"

// life returns the states of a seed, from the first to the last.
func (s seed) life() []oona.State {
	last := oona.Fossilized
	if s.number%2 == 1 {
		last = oona.Culled
	}
	return []oona.State{oona.Dormant, oona.Germinated, oona.Training, oona.Grafting, oona.Stabilization, oona.Evaluating, oona.FineTuning, last}
}

// event returns an event of the seed. The same event is the same bytes.
func (s seed) event(sequence int) *oona.SeedEvent {
	states := s.life()
	return &oona.SeedEvent{
		Run: s.run, Layer: layerOfSeeds, Seed: s.number, Sequence: int64(sequence), At: 1_790_000_000_000_000 + oona.Micros(s.number)*1000 + oona.Micros(sequence),
		From: states[sequence], To: states[sequence+1],
	}
}

// lives are the events that were sent.
type lives struct {
	mu      sync.Mutex
	seeds   map[seed]int // how many events of each seed are acknowledged
	answers map[int]int  // requests by status; 0 for no answer
}

func (l *lives) answered(status int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers[status]
}

// answer records the answer to a request with the next event of each of the seeds.
func (l *lives) answer(status int, of []seed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[status]++
	if status/100 == 2 {
		for _, s := range of {
			l.seeds[s]++
		}
	}
}

// live starts a sender of events for each of the runs. It sends each request again until it
// is acknowledged, as frames are sent. finish stops the senders, and returns when the seeds
// that live have come to the end of their lives.
func (w *world) live(runs ...oona.RunID) (l *lives, finish func()) {
	l = &lives{seeds: make(map[seed]int), answers: make(map[int]int)}
	stop := make(chan struct{})
	var sending sync.WaitGroup
	url := w.url() + "/v1/events"
	for _, run := range runs {
		sending.Go(func() {
			client := &http.Client{Timeout: 15 * time.Second}
			defer client.CloseIdleConnections()
			for first := oona.SeedID(0); w.ctx.Err() == nil; first += seedsAtATime {
				select {
				case <-stop:
					return
				default:
				}
				generation := make([]seed, seedsAtATime)
				for i := range generation {
					generation[i] = seed{run, first + oona.SeedID(i)}
				}
				l.send(w.ctx, client, url, generation)
			}
		})
	}
	return l, sync.OnceFunc(func() {
		close(stop)
		sending.Wait()
	})
}

// send sends the events of the lives of some seeds, one of each seed in a request.
func (l *lives) send(ctx context.Context, client *http.Client, url string, of []seed) {
	for sequence := range len(of[0].life()) - 1 {
		var body []byte
		for _, s := range of {
			body = avro.AppendEvent(body, s.event(sequence))
		}
		for {
			status := postTo(ctx, client, url, body)
			l.answer(status, of)
			if status/100 == 2 {
				break
			}
			if !bus.Pause(ctx, retry) {
				return
			}
		}
		if !bus.Pause(ctx, 50*time.Millisecond) {
			return
		}
	}
}

// audited is what `oona audit --json` says.
type audited struct {
	lives map[seed][]auditedEvent
	sums  struct {
		Seeds, Events, Repeats int
		Faults                 map[string]int
	}
}

type auditedEvent struct {
	Sequence int64           `json:"sequence"`
	From     string          `json:"from_state"`
	To       string          `json:"to_state"`
	Faults   json.RawMessage `json:"faults"`
}

func (w *world) audit() (a audited) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	var out, messages bytes.Buffer
	cmd := exec.CommandContext(ctx, binaries["oona"], "audit", "--json", "--brokers", w.brokers, "--prefix", w.prefix)
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		w.Errorf("oona audit: %v\n%s", err, &messages)
	}
	a.lives = make(map[seed][]auditedEvent)
	lines := bufio.NewScanner(&out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var life struct {
			Run    oona.RunID     `json:"run_id"`
			Seed   oona.SeedID    `json:"seed_id"`
			Events []auditedEvent `json:"events"`
		}
		// The last line has the sums, and a number of events in place of events.
		if err := json.Unmarshal(lines.Bytes(), &life); err != nil || life.Run == "" {
			if err := json.Unmarshal(lines.Bytes(), &a.sums); err != nil {
				w.Fatalf("%v: %s", err, lines.Bytes())
			}
			continue
		}
		of := seed{life.Run, life.Seed}
		if _, twice := a.lives[of]; twice {
			w.Errorf("seed %v has two lives", of)
		}
		a.lives[of] = life.Events
	}
	if err := lines.Err(); err != nil {
		w.Fatal(err)
	}
	return a
}

// checkLives checks that the audit has the lives that were sent: each event once and in
// order, and nothing else.
func (w *world) checkLives(sent *lives, found audited) (events int) {
	w.Helper()
	for s, acknowledged := range sent.seeds {
		events += acknowledged
		if got := fmt.Sprint(found.lives[s]); got != fmt.Sprint(s.expected(acknowledged)) {
			w.Errorf("of seed %v, %d events were acknowledged; the audit has %s", s, acknowledged, got)
			return events
		}
	}
	if len(found.lives) != len(sent.seeds) || found.sums.Seeds != len(sent.seeds) || found.sums.Events != events || len(found.sums.Faults) > 0 {
		w.Errorf("%d events of %d seeds were sent; the audit has %d seeds, and says %+v", events, len(sent.seeds), len(found.lives), found.sums)
	}
	return events
}

// expected returns the first events of a seed as the audit shows them.
func (s seed) expected(events int) (all []auditedEvent) {
	for sequence := range events {
		e := s.event(sequence)
		all = append(all, auditedEvent{Sequence: e.Sequence, From: e.From.String(), To: e.To.String()})
	}
	return all
}

// Row 22. All brokers are killed while frames and events are sent, and ingest is killed while
// both are in its spool. When the brokers are back, each event is on the bus, the audit has the
// lives of the seeds in order and without gaps, the exporter has counted each event once, and
// the frames are folded.
func eventsThroughOutage(w *world) {
	if _, err := kafkabus.New(kafkabus.Config{Brokers: kafka.Addrs(), ClientID: "scenarios"}, nil).Apply(w.ctx, w.topics.EventSpecs(partitions)); err != nil {
		w.Fatal(err)
	}
	w.windows.IdleHorizon = spoolOutage
	s := &spooling{world: w, dir: w.TempDir(), brokers: w.brokers}
	s.start()
	w.startWorker()
	exporter := launch(w.T, "exporter", append(w.common(), "--lookback", "0")...)
	exporter.awaitReady(w.T, w.ctx)
	finish := w.train(w.pair("run-a", 200)...)
	sent, finishLives := w.live("run-a", "run-b")
	w.await("events to be on the bus", func() bool { return sent.answered(200) >= 60 })
	defer kafka.recover(w.T, w.ctx) // even if the scenario fails
	for id := 1; id <= 3; id++ {
		if err := kafka.Kill(id); err != nil {
			w.Fatal(err)
		}
	}
	w.pause(500 * time.Millisecond) // for answers in flight
	before := sent.answered(200)
	w.await("frames and events to be spooled", func() bool { return w.acks.answered(202) >= 40 && sent.answered(202) >= 40 })
	s.ingest.kill(w.T)
	s.start()
	spooled := sent.answered(202)
	w.await("events to be spooled by the next ingest", func() bool { return sent.answered(202) > spooled+20 })
	if now := sent.answered(200); now != before {
		w.Errorf("%d requests with events were answered 200 without a broker", now-before)
	}
	down := time.Now()
	kafka.recover(w.T, w.ctx)
	w.figure("brokers back after %s", time.Since(down).Round(time.Second))
	s.awaitDrained()
	w.figure("spool sent after %s", time.Since(down).Round(time.Second))
	w.await("events to go to the bus again", func() bool { return sent.answered(200) > before+40 })
	finish()
	finishLives()
	s.awaitDrained()
	w.stop()

	found := w.audit()
	events := w.checkLives(sent, found)
	w.figure("%d events of %d seeds, %d repeats, answers %v", events, len(sent.seeds), found.sums.Repeats, sent.answers)
	for status := range sent.answers {
		if status != 0 && status != 200 && status != 202 && status != 503 {
			w.Errorf("%d requests with events were answered %d", sent.answers[status], status)
		}
	}
	shown := 0 // of the seven events of a life, germinated, grafted, and the last
	for _, n := range sent.seeds {
		if n == len(seed{}.life())-1 {
			shown += 3
		}
	}
	w.await("the exporter to have all events", func() bool { return int(exporter.metrics()["kasmina_layer_transitions_total"]) >= shown })
	if got := int(exporter.metrics()["kasmina_layer_transitions_total"]); got != shown {
		w.Errorf("the exporter counts %d transitions, not %d", got, shown)
	}
	exporter.terminate(w.T)
	w.onlyAnswers(0, 200, 202, 503)
	r := w.check()
	w.inOrder(r)
	w.nothingAside(r)
}
