package partition_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/partition"
)

// adder is a machine that adds numbers up and emits the sum at each number. It resumes
// from the sum in its commit.
type adder struct {
	sum, processed int64
	folds          int
	open           int
	idleTicks      int64
	fails          error // of the next Fold
	tooLarge       error
}

func (a *adder) Fold(msg *message.Message, at bus.Position, emit partition.Emit) (bool, error) {
	a.folds++
	if a.fails != nil {
		err := a.fails
		a.fails = nil
		return false, err
	}
	switch text := string(msg.Payload); text {
	case "late error", "late panic": // once it has emitted, and counted the record
		emit("sums", bus.NewMessage([]byte("half"), bus.Target{}))
		a.processed = at.Offset + 1
		if text == "late panic" {
			panic("a bug")
		}
		return false, errors.New("too late")
	case "retry after emit":
		emit("sums", bus.NewMessage([]byte("half"), bus.Target{}))
		return false, partition.ErrRetry
	case "retry after count":
		a.processed = at.Offset + 1
		return false, partition.ErrRetry
	case "tick":
	case "bug":
		panic("a bug")
	default:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return false, err
		}
		a.sum += n
		emit("sums", bus.NewMessage([]byte(strconv.FormatInt(a.sum, 10)), bus.Target{}))
	}
	a.processed = at.Offset + 1
	return false, nil
}

func (a *adder) Commit() (bus.Commit, error) {
	return bus.Commit{Offset: a.processed, Metadata: strconv.FormatInt(a.sum, 10)}, a.tooLarge
}
func (a *adder) ProcessedTo() int64               { return a.processed }
func (a *adder) Replaying() bool                  { return false }
func (a *adder) NeededSince() (oona.Micros, bool) { return 0, false }
func (a *adder) Pace() partition.Pace {
	return partition.Pace{Open: a.open, TickInterval: time.Second, IdleTicks: a.idleTicks}
}

// published is a publisher that fails some times, and then keeps the messages.
type published struct {
	mu       sync.Mutex
	failures int
	tried    int
	on       map[string][]*message.Message
}

var errAway = errors.New("the bus is away")

func (p *published) Publish(_ context.Context, topic string, messages ...*message.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried++
	if p.failures > 0 {
		p.failures--
		return errAway
	}
	if p.on == nil {
		p.on = make(map[string][]*message.Message)
	}
	p.on[topic] = append(p.on[topic], messages...)
	return nil
}

func (p *published) Close() error { return nil }

func (p *published) payloads(topic string) (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, msg := range p.on[topic] {
		all = append(all, string(msg.Payload))
	}
	return all
}

// world is a runtime of adders over one partition, in a bubble of synctest.
type world struct {
	t        *testing.T
	runtime  *partition.Runtime
	machine  *adder
	refuses  error // what Open returns
	out      published
	registry *prometheus.Registry

	messages chan *message.Message
	consumer bus.Consumer
	next     int64
	ended    chan error
}

func (w *world) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		for {
			select {
			case msg := <-w.messages:
				out <- msg
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}
func (w *world) Close() error  { return nil }
func (w *world) Joined() error { return nil }

var errRefused = errors.New("refused for good")

func start(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, messages: make(chan *message.Message), ended: make(chan error, 1), registry: prometheus.NewRegistry()}
	var err error
	w.runtime, err = partition.New(partition.Config{
		Name:  "adder",
		Topic: "numbers",
		Open: func(_ context.Context, a bus.Assignment) (partition.Opened, error) {
			if w.refuses != nil {
				return partition.Opened{}, w.refuses
			}
			w.machine = &adder{idleTicks: 200}
			from, held := a.Resume()
			if !held {
				return partition.Opened{}, errRefused
			}
			if a.Committed.Offset != bus.NoOffset {
				w.machine.processed = from
				w.machine.sum, _ = strconv.ParseInt(a.Committed.Metadata, 10, 64)
			}
			return partition.Opened{Machine: w.machine, From: from}, nil
		},
		Refuses:      func(err error) bool { return errors.Is(err, errRefused) },
		Tick:         func(time.Time) *message.Message { return message.NewMessage("", []byte("tick")) },
		TickInterval: time.Second,
		Retention:    func(context.Context) (time.Duration, error) { return 7 * 24 * time.Hour, nil },
		Outputs:      []string{"sums"},
	}, &w.out, w.registry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { w.ended <- w.runtime.Run(ctx, w) }()
	t.Cleanup(func() { cancel(); synctest.Wait() })
	return w
}

// assign gives the runtime the partition.
func (w *world) assign(a bus.Assignment) {
	w.t.Helper()
	a.Topic, a.Partition, a.Partitions = "numbers", 2, 4
	var err error
	if w.next, w.consumer, err = w.runtime.Assign(w.t.Context(), a); err != nil {
		w.t.Fatal(err)
	}
}

var fresh = bus.Assignment{Committed: bus.Commit{Offset: bus.NoOffset}}

// assigned is an assignment with a commit.
func assigned(c bus.Commit, end int64) bus.Assignment {
	return bus.Assignment{LogEnd: end, Committed: c}
}

// message returns the next record.
func (w *world) message(payload string) *message.Message {
	msg := message.NewMessage("", []byte(payload))
	msg.SetContext(bus.WithPosition(w.t.Context(), bus.Position{Topic: "numbers", Partition: 2, Offset: w.next, Appended: oona.MicrosOf(time.Now()), Consumer: w.consumer}))
	return msg
}

// deliver delivers the next record once and reports whether it was acked.
func (w *world) deliver(payload string) bool {
	msg := w.message(payload)
	w.messages <- msg
	select {
	case <-msg.Acked():
		w.next++
		return true
	case <-msg.Nacked():
		return false
	}
}

// fold delivers records until each is acked.
func (w *world) fold(payloads ...string) {
	for _, payload := range payloads {
		for !w.deliver(payload) {
		}
	}
}

// A successor resumes from the commit, with another machine.
func TestCommitAndSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.assign(fresh)
		if _, due := w.consumer.Commit(); due {
			t.Error("something is to be committed before anything was folded")
		}
		w.fold("1", "2", "3")
		commit, due := w.consumer.Commit()
		if !due || commit != (bus.Commit{Offset: 3, Metadata: "6"}) {
			t.Fatalf("the commit is %+v, %v", commit, due)
		}
		w.consumer.Committed(commit, errAway)
		if _, due := w.consumer.Commit(); !due {
			t.Error("a commit that failed is not tried again")
		}
		w.consumer.Committed(commit, nil)
		if _, due := w.consumer.Commit(); due {
			t.Error("a commit is made twice")
		}
		first := w.machine
		w.consumer.Revoke()
		if !w.deliver("100") || first.sum != 6 { // it was on its way
			t.Errorf("a record after the end of the assignment was folded: %d", first.sum)
		}
		w.assign(assigned(commit, 4))
		w.fold("4")
		if got := fmt.Sprint(w.out.payloads("sums")); got != "[1 3 6 10]" {
			t.Errorf("emitted %s", got)
		}
	})
}

// While the bus refuses messages, the record is delivered again, is folded once, and
// nothing is committed.
func TestOutboxIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.assign(fresh)
		w.out.failures = 3
		if w.deliver("5") {
			t.Fatal("the record was acked, and its sum is not on the bus")
		}
		if c, due := w.consumer.Commit(); due {
			t.Errorf("%+v is committed while a sum is not on the bus", c)
		}
		if pending := w.runtime.Counts().Pending; pending != 1 {
			t.Errorf("%d messages are pending", pending)
		}
		w.fold("5")
		if got := fmt.Sprint(w.out.payloads("sums")); got != "[5]" || w.machine.sum != 5 || w.out.tried != 4 {
			t.Errorf("emitted %s after %d attempts", got, w.out.tried)
		}
		if _, due := w.consumer.Commit(); !due {
			t.Error("nothing is to be committed once the sum is on the bus")
		}
	})
}

// A machine may ask for a record again. Any other error ends the worker, as does a
// panic.
func TestErrorsOfTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.assign(fresh)
		w.machine.fails = fmt.Errorf("%w: what it needs is away", partition.ErrRetry)
		if w.deliver("1") {
			t.Error("the record was acked")
		}
		w.fold("1")
		if w.deliver("no number") {
			t.Error("the record was acked")
		}
		if err := <-w.ended; !errors.Is(err, strconv.ErrSyntax) {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.assign(fresh)
		if w.deliver("bug") {
			t.Error("the record was acked")
		}
		if err := <-w.ended; err == nil {
			t.Error("the worker survives a panic")
		}
	})
}

// A record that is tried again for long makes the worker not ready, although
// redeliveries come all the time.
func TestRecordThatIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.assign(fresh)
		w.fold("1")
		ready := func() error {
			w.consumer.End(2) // the record that is tried again, and no more
			return w.runtime.Ready()
		}
		if err := ready(); err != nil {
			t.Fatalf("Ready: %v", err)
		}
		for began := time.Now(); time.Since(began) < time.Minute; {
			w.machine.fails = fmt.Errorf("%w: what it needs is away", partition.ErrRetry)
			if w.deliver("2") {
				t.Fatal("the record was acked")
			}
		}
		if err := ready(); !errors.Is(err, partition.ErrRetrying) {
			t.Errorf("Ready: %v", err)
		}
		w.fold("2")
		if err := ready(); err != nil {
			t.Errorf("Ready after the record was folded: %v", err)
		}
	})
}

// An error of Open ends the worker only if Refuses says so.
func TestAssignmentThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		for i, refuses := range []error{errAway, fmt.Errorf("%w: %w", bus.ErrShort, errRefused), errRefused} {
			final := i == 2
			w.refuses = refuses
			if _, _, err := w.runtime.Assign(t.Context(), fresh); !errors.Is(err, w.refuses) {
				t.Errorf("Assign: %v, want %v", err, w.refuses)
			}
			synctest.Wait()
			select {
			case err := <-w.ended:
				if !final || !errors.Is(err, errRefused) {
					t.Errorf("after %v it ends with %v", w.refuses, err)
				}
			default:
				if final {
					t.Error("the worker does not end")
				}
			}
		}
	})
}

// A quiet partition that is read to its end gets ticks if something is open. An idle
// partition gets them rarely.
func TestTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.assign(bus.Assignment{LogEnd: 1, Committed: fresh.Committed})
		if err := w.runtime.Ready(); err == nil {
			t.Error("ready before it has caught up")
		}
		passes := func(seconds int) int {
			before := len(w.out.payloads("numbers"))
			for range seconds {
				time.Sleep(time.Second)
				w.consumer.End(w.next)
			}
			synctest.Wait()
			return len(w.out.payloads("numbers")) - before
		}
		w.fold("1")
		if n := passes(60); n != 0 {
			t.Errorf("%d ticks into an idle partition within a minute", n)
		}
		if err := w.runtime.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}
		w.machine.open = 1
		w.fold("2")
		if n := passes(10); n < 8 || n > 11 {
			t.Errorf("%d ticks within ten seconds", n)
		}
		if to := bus.TargetOf(w.out.on["numbers"][0]); !to.Directed || to.Partition != 2 {
			t.Errorf("a tick goes to %+v", to)
		}
		if n := testutil.ToFloat64(collector{w.registry, "oona_adder_ticks_written_total"}); n < 8 {
			t.Errorf("%v ticks are counted", n)
		}
	})
}

// An idle partition gets a tick in a quarter of an hour if its machine asks for none.
func TestTicksOfAMachineThatAsksForNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.assign(fresh)
		w.machine.idleTicks = 0
		w.fold("1")
		for range 31 * 60 {
			time.Sleep(time.Second)
			w.consumer.End(w.next)
		}
		synctest.Wait()
		if n := len(w.out.payloads("numbers")); n < 1 {
			t.Errorf("%d ticks", n)
		}
	})
}

// collector collects one metric of a registry.
type collector struct {
	registry *prometheus.Registry
	name     string
}

func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

func (c collector) Collect(ch chan<- prometheus.Metric) {
	families, err := c.registry.Gather()
	if err != nil {
		panic(err)
	}
	for _, family := range families {
		if family.GetName() == c.name {
			ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(c.name, "", nil, nil), prometheus.CounterValue, family.GetMetric()[0].GetCounter().GetValue())
		}
	}
}

// If the state does not fit into a commit, the last commit stays valid.
func TestCommitThatDoesNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.assign(fresh)
		w.fold("1")
		w.machine.tooLarge = errors.New("too large")
		if c, due := w.consumer.Commit(); due {
			t.Errorf("%+v is committed", c)
		}
		w.machine.tooLarge = nil
		if _, due := w.consumer.Commit(); !due {
			t.Error("nothing is committed once it fits")
		}
	})
}
