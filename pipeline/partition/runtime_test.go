package partition_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/pipeline/partition"
)

// adder is a machine that adds up numbers, and emits the sum after each number. It resumes from the sum
// in its commit.
type adder struct {
	sum, processed int64
	folds          int
	open           int
	idleTicks      int64
	fails          error // error of each Fold
	tooLarge       error
}

func (a *adder) Fold(msg *message.Message, at bus.Position, emit partition.Emit) (bool, error) {
	a.folds++
	if a.fails != nil {
		return false, a.fails
	}
	switch text := string(msg.Payload); text {
	case "late error", "late panic": // after it has emitted, and counted the record
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

var (
	errAway    = errors.New("the bus does not answer")
	errRefused = errors.New("refused for good")
)

const (
	group       = "adders"
	owned       = 2 // partition that the tests use
	commitEvery = 100 * time.Millisecond
)

// world is a bus and a worker of adders, in a bubble of synctest.
type world struct {
	t         *testing.T
	bus       *memory.Bus
	publisher bus.Publisher // publisher of the worker and of the test
	runtime   *partition.Runtime
	member    bus.Member
	registry  *prometheus.Registry
	stop      func() // stops the worker
	ended     chan error

	mu       sync.Mutex
	refuses  error        // error that Open returns
	machine  *adder       // machine of the last assignment of the partition
	consumer bus.Consumer // consumer of that assignment
}

func newBus(t *testing.T) *memory.Bus {
	t.Helper()
	b := memory.New()
	if _, err := b.Apply(t.Context(), []oona.TopicSpec{{Name: "numbers", Partitions: 4, AppendTime: true}, {Name: "sums", Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	return b
}

// newWorld makes a worker, and does not start it.
func newWorld(t *testing.T, b *memory.Bus) *world {
	t.Helper()
	w := &world{t: t, bus: b, registry: prometheus.NewRegistry(), ended: make(chan error, 1)}
	var err error
	if w.publisher, err = b.Publisher(bus.PublisherOptions{}); err != nil {
		t.Fatal(err)
	}
	w.runtime, err = partition.New(partition.Config{
		Name:         "adder",
		Topic:        "numbers",
		Open:         w.open,
		Refuses:      func(err error) bool { return errors.Is(err, errRefused) },
		Tick:         func(time.Time) *message.Message { return message.NewMessage("", []byte("tick")) },
		TickInterval: time.Second,
		Retention:    func(context.Context) (time.Duration, error) { return 7 * 24 * time.Hour, nil },
		Outputs:      []string{"sums"},
	}, w.publisher, w.registry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// start starts a worker and waits until it has its partitions.
func start(t *testing.T, b *memory.Bus) *world {
	t.Helper()
	w := newWorld(t, b)
	w.run()
	time.Sleep(commitEvery)
	return w
}

func (w *world) run() {
	w.t.Helper()
	var err error
	if w.member, err = w.bus.Member(bus.MemberOptions{Group: group, CommitEvery: commitEvery}, w); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.ended <- errors.Join(w.runtime.Run(ctx, w.member), w.member.Close()) })
	w.stop = func() { cancel(); running.Wait() }
	w.t.Cleanup(w.stop)
}

// Assign keeps the Consumer of the partition.
func (w *world) Assign(ctx context.Context, a bus.Assignment) (int64, bus.Consumer, error) {
	from, c, err := w.runtime.Assign(ctx, a)
	if err == nil && a.Partition == owned {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.consumer = c
	}
	return from, c, err
}

func (w *world) open(_ context.Context, a bus.Assignment) (partition.Opened, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuses != nil {
		return partition.Opened{}, w.refuses
	}
	m := &adder{idleTicks: 200}
	from, held := a.Resume()
	if !held {
		return partition.Opened{}, errRefused
	}
	if a.Committed.Offset != bus.NoOffset {
		m.processed = from
		m.sum, _ = strconv.ParseInt(a.Committed.Metadata, 10, 64)
	}
	if a.Partition == owned {
		w.machine = m
	}
	return partition.Opened{Machine: m, From: from}, nil
}

func (w *world) refuse(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuses = err
}

// change changes the machine at a time when it does not fold.
func (w *world) change(do func(*adder)) {
	w.runtime.Each(func(at int32, m partition.Machine) {
		if at == owned {
			do(m.(*adder))
		}
	})
}

// write appends records to the log.
func (w *world) write(payloads ...string) {
	w.t.Helper()
	for _, payload := range payloads {
		if err := w.publisher.Publish(w.t.Context(), "numbers", bus.NewMessage([]byte(payload), bus.Target{Partition: owned, Directed: true})); err != nil {
			w.t.Fatal(err)
		}
	}
}

// fold appends records and waits until they are folded and committed.
func (w *world) fold(payloads ...string) {
	w.t.Helper()
	w.write(payloads...)
	time.Sleep(3 * commitEvery)
	synctest.Wait()
}

// committed returns the commit of the partition.
func (w *world) committed() bus.Commit {
	w.t.Helper()
	all, err := w.bus.Commits(w.t.Context(), group, "numbers")
	if err != nil {
		w.t.Fatal(err)
	}
	return all[owned]
}

// payloads returns the payloads of a topic's partition.
func (w *world) payloads(topic string, of int32) (all []string) {
	w.t.Helper()
	err := w.bus.Read(w.t.Context(), topic, bus.Range{Partition: of, End: math.MaxInt64}, func(msg *message.Message) error {
		all = append(all, string(msg.Payload))
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

func (w *world) sums() []string { return w.payloads("sums", 0) }

func (w *world) ticks() (n int) {
	for _, payload := range w.payloads("numbers", owned) {
		if payload == "tick" {
			n++
		}
	}
	return n
}

// counted returns the value of a counter. result is its label, if it has one.
func (w *world) counted(name, result string) (value float64) {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && (result == "" || m.GetLabel()[0].GetValue() == result) {
				value += m.GetCounter().GetValue()
			}
		}
	}
	return value
}

// runs fails the test if the worker has ended.
func (w *world) runs() {
	w.t.Helper()
	synctest.Wait()
	select {
	case err := <-w.ended:
		w.t.Fatalf("the worker ended: %v", err)
	default:
	}
}

var noCommit = bus.Commit{Offset: bus.NoOffset}

// A successor resumes from the commit, with another machine. A failed commit is tried again, and no
// commit is made twice.
func TestCommitAndSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newBus(t))
		time.Sleep(time.Second)
		if c := w.committed(); c != noCommit {
			t.Errorf("%+v is committed before anything was folded", c)
		}
		w.bus.RefuseCommits(func(string, int32) error { return errAway })
		w.fold("1", "2", "3")
		if c, failed := w.committed(), w.counted("oona_adder_commits_total", "failed"); c != noCommit || failed < 2 {
			t.Errorf("%+v is committed after %v failures", c, failed)
		}
		w.bus.RefuseCommits(nil)
		time.Sleep(time.Second)
		if c := w.committed(); c != (bus.Commit{Offset: 3, Metadata: "6"}) {
			t.Fatalf("the commit is %+v", c)
		}
		if done := w.counted("oona_adder_commits_total", "done"); done != 1 {
			t.Errorf("%v commits were made", done)
		}
		w.consumer.Revoke()
		w.fold("100") // a record that arrives after the end of the assignment
		if w.machine.sum != 6 || w.committed().Offset != 3 {
			t.Errorf("a record after the end of the assignment was folded: %d, %+v", w.machine.sum, w.committed())
		}
		w.stop()

		next := start(t, w.bus)
		next.fold("4")
		if got := fmt.Sprint(next.sums()); got != "[1 3 6 106 110]" {
			t.Errorf("emitted %s", got)
		}
	})
}

// While the bus refuses messages, the record is delivered again, is folded once, and
// nothing is committed.
func TestOutboxIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newBus(t))
		tried := 0
		w.bus.Refuse(func(topic string, _ int32) error {
			if topic != "sums" {
				return nil
			}
			if tried++; tried <= 3 {
				return errAway
			}
			return nil
		})
		w.fold("5")
		if c, pending := w.committed(), w.runtime.Counts().Pending; c != noCommit || pending != 1 || len(w.sums()) > 0 {
			t.Errorf("%+v is committed, %d messages are pending, %v are on the bus", c, pending, w.sums())
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := fmt.Sprint(w.sums()); got != "[5]" || w.machine.folds != 1 || tried != 4 {
			t.Errorf("emitted %s after %d attempts, and folded %d times", got, tried, w.machine.folds)
		}
		if c := w.committed(); c != (bus.Commit{Offset: 1, Metadata: "5"}) {
			t.Errorf("the commit is %+v once the sum is on the bus", c)
		}
	})
}

// A machine may ask for a record again. Any other error ends the worker, as does a
// panic.
func TestErrorsOfTheMachine(t *testing.T) {
	for payload, want := range map[string]error{"no number": strconv.ErrSyntax, "bug": partition.ErrPanic} {
		synctest.Test(t, func(t *testing.T) {
			w := start(t, newBus(t))
			w.change(func(m *adder) { m.fails = fmt.Errorf("%w: what it needs is away", partition.ErrRetry) })
			w.fold("1")
			if w.runs(); w.committed() != noCommit || w.machine.folds == 0 {
				t.Errorf("%+v is committed", w.committed())
			}
			w.change(func(m *adder) { m.fails = nil })
			time.Sleep(10 * time.Second)
			if w.runs(); w.committed().Offset != 1 {
				t.Errorf("%+v is committed", w.committed())
			}
			w.write(payload)
			if err := <-w.ended; !errors.Is(err, want) {
				t.Errorf("Run: %v, want %v", err, want)
			}
			if c := w.committed(); c.Offset != 1 {
				t.Errorf("%+v is committed after %s", c, payload)
			}
		})
	}
}

// If a record is tried again for a long time, the worker is not ready, although
// redeliveries arrive all the time.
func TestRecordThatIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newBus(t))
		w.fold("1")
		if err := w.runtime.Ready(); err != nil {
			t.Fatalf("Ready: %v", err)
		}
		w.change(func(m *adder) { m.fails = fmt.Errorf("%w: what it needs is away", partition.ErrRetry) })
		w.write("2")
		time.Sleep(29 * time.Second)
		if err := w.runtime.Ready(); err != nil {
			t.Errorf("Ready before half a minute: %v", err)
		}
		time.Sleep(31 * time.Second)
		if err := w.runtime.Ready(); !errors.Is(err, partition.ErrRetrying) {
			t.Errorf("Ready: %v", err)
		}
		w.change(func(m *adder) { m.fails = nil })
		time.Sleep(10 * time.Second)
		if err := w.runtime.Ready(); err != nil {
			t.Errorf("Ready after the record was folded: %v", err)
		}
	})
}

// An error of Open ends the worker only if Refuses says so.
func TestAssignmentThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newBus(t))
		w.refuse(errAway)
		w.run()
		for _, passing := range []error{errAway, fmt.Errorf("%w: %w", bus.ErrShort, errRefused)} {
			w.refuse(passing)
			time.Sleep(time.Minute)
			w.runs()
			if err := w.runtime.Ready(); !errors.Is(err, bus.ErrNotAssigned) {
				t.Errorf("Ready is %v after %v", err, passing)
			}
		}
		w.refuse(errRefused)
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-w.ended:
			if !errors.Is(err, errRefused) {
				t.Errorf("it ends with %v", err)
			}
		default:
			t.Error("the worker does not end")
		}
	})
}

// A quiet partition that is read to its end gets ticks if its machine has something open. An idle
// partition gets them rarely.
func TestTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newBus(t))
		w.write("1")
		if err := w.bus.Freeze("numbers", owned); err != nil {
			t.Fatal(err)
		}
		w.run()
		time.Sleep(time.Second)
		if err := w.runtime.Ready(); !errors.Is(err, partition.ErrCatchingUp) {
			t.Errorf("Ready is %v before it has caught up", err)
		}
		if err := w.bus.Thaw("numbers", owned); err != nil {
			t.Fatal(err)
		}
		passes := func(seconds int) int {
			before := w.ticks()
			time.Sleep(time.Duration(seconds) * time.Second)
			synctest.Wait()
			return w.ticks() - before
		}
		if n := passes(60); n != 0 {
			t.Errorf("%d ticks into an idle partition within a minute", n)
		}
		if err := w.runtime.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}
		w.change(func(m *adder) { m.open = 1 })
		w.fold("2")
		if n := passes(10); n < 8 || n > 11 {
			t.Errorf("%d ticks within ten seconds", n)
		}
		if n := w.counted("oona_adder_ticks_written_total", ""); n < 8 {
			t.Errorf("%v ticks are counted", n)
		}
	})
}

// An idle partition gets a tick every quarter of an hour if its machine asks for none. A
// partition that never had a record gets none.
func TestTicksOfAMachineThatAsksForNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newBus(t))
		w.change(func(m *adder) { m.idleTicks = 0 })
		w.fold("1")
		time.Sleep(31 * time.Minute)
		synctest.Wait()
		if n, others := w.ticks(), len(w.payloads("numbers", owned+1)); n < 1 || n > 2 || others != 0 {
			t.Errorf("%d ticks, and %d in a partition without records", n, others)
		}
	})
}

// If the state does not fit into a commit, the last commit stays valid.
func TestCommitThatDoesNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newBus(t))
		w.fold("1")
		w.change(func(m *adder) { m.tooLarge = errors.New("too large") })
		w.fold("2")
		if c, n := w.committed(), w.counted("oona_adder_commits_total", "too_large"); c.Offset != 1 || n < 1 {
			t.Errorf("%+v is committed, after %v that are too large", c, n)
		}
		w.change(func(m *adder) { m.tooLarge = nil })
		time.Sleep(2 * commitEvery)
		synctest.Wait()
		if c := w.committed(); c.Offset != 2 {
			t.Errorf("%+v is committed once it fits", c)
		}
	})
}
