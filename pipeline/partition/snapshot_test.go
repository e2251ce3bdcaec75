package partition_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
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

// ledger is a machine whose state is too large for the metadata of a commit: it
// keeps all numbers of its partition. Every 50 records it emits the state in chunks,
// like any other output, and its commits refer to the last snapshot. See decision
// 0022.
type ledger struct {
	of        *ledgers
	partition int32
	numbers   []int64
	snapshot  snapshotRef // the last snapshot
	decided   int64       // offset up to which the log was processed at the commit; records before it emit nothing
}

// ledgerCommit is the metadata of a commit.
type ledgerCommit struct {
	Snapshot snapshotRef
	Decided  int64
}

// snapshotRef identifies a snapshot. Every owner that folds the same log writes the
// same bytes at the same place.
type snapshotRef struct {
	Offset int64 // the snapshot has all records before this offset
	Chunks int
	Hash   string
}

const (
	snapshotEvery = 50   // number of records between snapshots
	chunkBytes    = 1000 // maximum size of a chunk
)

func (l *ledger) Fold(msg *message.Message, at bus.Position, emit partition.Emit) (replayed bool, err error) {
	if at.Offset != int64(len(l.numbers)) {
		return false, fmt.Errorf("record %d follows %d", at.Offset, len(l.numbers)-1)
	}
	n, err := strconv.ParseInt(string(msg.Payload), 10, 64)
	if err != nil {
		return false, err
	}
	l.numbers = append(l.numbers, n)
	if replayed = at.Offset < l.decided; !replayed {
		emit("sums", l.directed([]byte(fmt.Sprint(at.Offset, " ", l.sum()))))
	}
	if len(l.numbers)%snapshotEvery == 0 {
		l.save(replayed, emit)
	}
	if l.of.panics.Add(-1) == 0 {
		panic("after the output, and after the record was counted")
	}
	return replayed, nil
}

func (l *ledger) sum() (sum int64) {
	for _, n := range l.numbers {
		sum += n
	}
	return sum
}

func (l *ledger) directed(payload []byte) *message.Message {
	return bus.NewMessage(payload, bus.Target{Partition: l.partition, Directed: true})
}

func (l *ledger) save(replayed bool, emit partition.Emit) {
	state, _ := json.Marshal(l.numbers)
	l.snapshot = snapshotRef{
		Offset: int64(len(l.numbers)),
		Chunks: (len(state) + chunkBytes - 1) / chunkBytes,
		Hash:   fmt.Sprintf("%x", sha256.Sum256(state)),
	}
	for i := range l.snapshot.Chunks {
		if !replayed {
			chunk := l.directed(state[i*chunkBytes : min(len(state), (i+1)*chunkBytes)])
			chunk.Metadata = message.Metadata{"hash": l.snapshot.Hash, "index": strconv.Itoa(i)}
			emit("snapshots", chunk)
		}
	}
}

func (l *ledger) Commit() (bus.Commit, error) {
	text, err := json.Marshal(ledgerCommit{l.snapshot, l.ProcessedTo()})
	return bus.Commit{Offset: l.snapshot.Offset, Metadata: string(text)}, err
}

func (l *ledger) ProcessedTo() int64               { return max(l.decided, int64(len(l.numbers))) }
func (l *ledger) Replaying() bool                  { return int64(len(l.numbers)) < l.decided }
func (l *ledger) NeededSince() (oona.Micros, bool) { return 0, false }
func (l *ledger) Pace() partition.Pace {
	return partition.Pace{TickInterval: time.Second, IdleTicks: 200}
}

var errSnapshot = errors.New("the snapshot that the commit refers to is not in the topic, or is damaged; delete the group's offset of the partition, and the log is folded from its beginning")

// load reads a snapshot back.
func load(ctx context.Context, b bus.Admin, from int32, ref snapshotRef) (numbers []int64, err error) {
	extents, err := b.Extents(ctx, "snapshots")
	if err != nil {
		return nil, err
	}
	held := extents["snapshots"][from]
	chunks := make(map[string][]byte)
	err = b.Read(ctx, "snapshots", bus.Range{Partition: from, From: held.Start, End: held.End}, func(msg *message.Message) error {
		if _, found := chunks[msg.Metadata["index"]]; !found && msg.Metadata["hash"] == ref.Hash {
			chunks[msg.Metadata["index"]] = msg.Payload
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var state []byte
	for i := range ref.Chunks {
		state = append(state, chunks[strconv.Itoa(i)]...)
	}
	if fmt.Sprintf("%x", sha256.Sum256(state)) != ref.Hash {
		return nil, fmt.Errorf("%w: snapshots/%d, of offset %d", errSnapshot, from, ref.Offset)
	}
	return numbers, json.Unmarshal(state, &numbers)
}

// ledgers are workers that run ledgers of one topic on one bus.
type ledgers struct {
	t        *testing.T
	bus      *memory.Bus
	largest  atomic.Int64 // size in bytes of the largest snapshot that was loaded
	panics   atomic.Int64 // if it is 1, the next Fold panics
	panicked int
	workers  []*ledgerWorker
}

type ledgerWorker struct {
	runtime *partition.Runtime
	member  *memory.Member
	stop    context.CancelFunc
	ended   chan error
}

const ledgerPartitions = 2

func newLedgers(t *testing.T) *ledgers {
	t.Helper()
	l := &ledgers{t: t, bus: memory.New()}
	var specs []oona.TopicSpec
	for _, name := range []string{"numbers", "sums", "snapshots"} {
		specs = append(specs, oona.TopicSpec{Name: name, Partitions: ledgerPartitions, AppendTime: true})
	}
	if _, err := l.bus.Apply(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *ledgers) publisher() bus.PinnedPublisher {
	l.t.Helper()
	p, err := l.bus.Publisher(bus.PublisherOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

func (l *ledgers) open(ctx context.Context, a bus.Assignment) (partition.Opened, error) {
	m := &ledger{of: l, partition: a.Partition}
	if a.Committed.Offset == bus.NoOffset {
		return partition.Opened{Machine: m, From: a.LogStart}, nil
	}
	var c ledgerCommit
	err := json.Unmarshal([]byte(a.Committed.Metadata), &c)
	if err == nil && c.Snapshot.Chunks > 0 {
		if m.numbers, err = load(ctx, l.bus, a.Partition, c.Snapshot); err != nil && !a.Settled {
			err = fmt.Errorf("%w: %w", bus.ErrShort, err)
		}
		state, _ := json.Marshal(m.numbers)
		l.largest.Store(max(l.largest.Load(), int64(len(state)))) // not exact, because two goroutines may do this at once
	}
	m.snapshot, m.decided = c.Snapshot, c.Decided
	return partition.Opened{Machine: m, From: a.Committed.Offset}, err
}

// start starts a worker.
func (l *ledgers) start() *ledgerWorker {
	l.t.Helper()
	out := l.publisher()
	r, err := partition.New(partition.Config{
		Name: "ledger", Topic: "numbers", TickInterval: time.Second, Outputs: []string{"sums", "snapshots"},
		Open:    l.open,
		Refuses: func(err error) bool { return errors.Is(err, errSnapshot) },
		Tick:    func(time.Time) *message.Message { return message.NewMessage("", []byte("0")) },
	}, out, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		l.t.Fatal(err)
	}
	m, err := l.bus.Member(bus.MemberOptions{Group: "ledgers"}, r)
	if err != nil {
		l.t.Fatal(err)
	}
	w := &ledgerWorker{runtime: r, member: m.(*memory.Member), ended: make(chan error, 1)}
	ctx, stop := context.WithCancel(l.t.Context())
	w.stop = stop
	go func() { w.ended <- errors.Join(r.Run(ctx, m), m.Close(), out.Close()) }()
	return w
}

// end stops a worker. To kill a worker, end first expels it from the group, so that it cannot commit
// any more.
func (w *ledgerWorker) end(t *testing.T, kill bool) {
	t.Helper()
	if kill {
		w.member.Expel()
	}
	w.stop()
	if err := <-w.ended; err != nil && !errors.Is(err, partition.ErrPanic) {
		t.Errorf("a worker ended: %v", err)
	}
}

func (l *ledgers) write(p bus.Publisher, to int32, numbers ...int64) {
	l.t.Helper()
	for _, n := range numbers {
		msg := bus.NewMessage([]byte(strconv.FormatInt(n, 10)), bus.Target{Partition: to, Directed: true})
		if err := p.Publish(l.t.Context(), "numbers", msg); err != nil {
			l.t.Fatal(err)
		}
	}
}

// commits returns the content of the commits. Each commit must fit, and its snapshot must be complete.
func (l *ledgers) commits() (all [ledgerPartitions]ledgerCommit) {
	l.t.Helper()
	found, err := l.bus.Commits(l.t.Context(), "ledgers", "numbers")
	if err != nil {
		l.t.Fatal(err)
	}
	for p, c := range found {
		if c.Offset == bus.NoOffset {
			continue
		}
		if err := json.Unmarshal([]byte(c.Metadata), &all[p]); err != nil || len(c.Metadata) > 200 {
			l.t.Fatalf("%q: %v", c.Metadata, err)
		}
		if ref := all[p].Snapshot; ref.Chunks > 0 {
			numbers, err := load(l.t.Context(), l.bus, int32(p), ref)
			if err != nil || int64(len(numbers)) != ref.Offset {
				l.t.Fatalf("the commit %q: a snapshot of %d records, %v", c.Metadata, len(numbers), err)
			}
		}
	}
	return all
}

// payloads returns the payloads of a partition.
func (l *ledgers) payloads(topic string, of int32) (all []string) {
	l.t.Helper()
	err := l.bus.Read(l.t.Context(), topic, bus.Range{Partition: of, From: 0, End: 1 << 40}, func(msg *message.Message) error {
		all = append(all, string(msg.Payload))
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return all
}

// check compares the sums with the numbers in the log. Like a reader, it drops sums whose trigger is not
// above the last one.
func (l *ledgers) check() {
	l.t.Helper()
	for p := range int32(ledgerPartitions) {
		var want []string
		sum := int64(0)
		for i, text := range l.payloads("numbers", p) {
			n, _ := strconv.ParseInt(text, 10, 64)
			sum += n
			want = append(want, fmt.Sprint(i, " ", sum))
		}
		next := 0
		for _, got := range l.payloads("sums", p) {
			var trigger, sum int
			if _, err := fmt.Sscan(got, &trigger, &sum); err != nil || trigger > next || trigger >= len(want) || got != want[trigger] {
				l.t.Fatalf("partition %d: %q comes where %d is next", p, got, next)
			}
			next = max(next, trigger+1)
		}
		if next != len(want) {
			l.t.Errorf("partition %d: %d of %d sums", p, next, len(want))
		}
	}
}

// A machine with a large state writes it to a topic, and its commits refer to the records.
// Workers are killed, fenced, cut off from topics, and panic. A commit never refers to an incomplete
// snapshot. No output is lost, and none differs.
func TestSnapshotsSurviveKills(t *testing.T) {
	largest, panicked := int64(0), 0
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			l := newLedgers(t)
			random := rand.New(rand.NewPCG(seed, 1))
			in := l.publisher()
			defer in.Close()
			for range 2 {
				l.workers = append(l.workers, l.start())
			}
			for range 60 {
				l.step(random, in)
				l.commits()
			}
			l.bus.Refuse(nil)
			l.panics.Store(0)
			// A worker that has panicked may still be closing, and is replaced once it has ended.
			for range 60 {
				l.replace()
				for _, w := range l.workers {
					w.member.Notice()
				}
				time.Sleep(time.Second)
			}
			for _, w := range l.workers {
				w.end(t, false)
			}
			l.check()
			for p, c := range l.commits() {
				if written := len(l.payloads("numbers", int32(p))); c.Decided != int64(written) {
					t.Errorf("seed %d, partition %d: %+v of %d records", seed, p, c, written)
				}
			}
			largest = max(largest, l.largest.Load())
			panicked += l.panicked
		})
	}
	if panicked == 0 {
		t.Error("no worker ended after a panic")
	}
	if largest <= 4096 {
		t.Errorf("the largest snapshot that was loaded has %d bytes, want more than a commit takes", largest)
	}
}

var errCutOff = errors.New("cut off")

// replace starts another worker for each one that has ended after a panic.
func (l *ledgers) replace() {
	l.t.Helper()
	for i, w := range l.workers {
		select {
		case err := <-w.ended:
			if !errors.Is(err, partition.ErrPanic) {
				l.t.Errorf("a worker ended: %v", err)
			}
			l.panicked++
			w.stop()
			l.workers[i] = l.start()
		default:
		}
	}
}

// step lets a random event happen.
func (l *ledgers) step(random *rand.Rand, in bus.Publisher) {
	l.t.Helper()
	l.replace()
	i := random.IntN(len(l.workers))
	switch random.IntN(9) {
	case 0:
		l.workers[i].end(l.t, true)
		l.workers[i] = l.start()
	case 1:
		l.workers[i].end(l.t, false)
		l.workers[i] = l.start()
	case 2: // a zombie: it does not know that it has lost its partitions
		l.workers[i].member.Expel()
	case 3:
		l.workers[i].member.Notice()
	case 4:
		closed := []string{"sums", "snapshots", ""}[random.IntN(3)]
		l.bus.Refuse(func(topic string, _ int32) error {
			if topic == closed {
				return errCutOff
			}
			return nil
		})
	case 5:
		l.panics.Store(1)
	default:
		for range random.IntN(60) {
			l.write(in, random.Int32N(ledgerPartitions), 1e17+random.Int64N(1e17))
		}
	}
	time.Sleep(time.Duration(random.Int64N(int64(3 * time.Second))))
}

// If the snapshot of the commit is missing or damaged, the worker folds nothing, and its error says what
// to do.
func TestSnapshotThatIsLost(t *testing.T) {
	for _, how := range []string{"whole", "lost", "damaged"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLedgers(t)
				in := l.publisher()
				defer in.Close()
				first := l.start()
				for range 3 * snapshotEvery {
					l.write(in, 0, 1e17)
				}
				time.Sleep(5 * time.Second)
				first.end(t, false)
				ref := l.commits()[0].Snapshot
				chunks := l.payloads("snapshots", 0)
				if how != "whole" {
					if err := l.bus.Trim("snapshots", 0, int64(len(chunks))); err != nil {
						t.Fatal(err)
					}
				}
				for i := range ref.Chunks {
					if how == "damaged" {
						last := []byte(chunks[len(chunks)-ref.Chunks+i])
						last[len(last)/2] ^= 1
						chunk := bus.NewMessage(last, bus.Target{Directed: true})
						chunk.Metadata = message.Metadata{"hash": ref.Hash, "index": strconv.Itoa(i)}
						if err := in.Publish(t.Context(), "snapshots", chunk); err != nil {
							t.Fatal(err)
						}
					}
				}
				next := l.start()
				time.Sleep(5 * time.Second)
				select {
				case err := <-next.ended:
					if how == "whole" || !errors.Is(err, errSnapshot) {
						t.Errorf("Run: %v", err)
					}
				default:
					if how != "whole" {
						t.Error("the worker does not end")
					}
					next.end(t, false)
				}
				next.stop()
			})
		})
	}
}
