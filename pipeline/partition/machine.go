package partition

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// Machine folds the records of one partition, starting at the offset of Opened.From.
// Its methods are never called concurrently. After Fold has failed or panicked the
// machine is not used again.
type Machine interface {
	// Fold folds a record. Everything that it emits is on the bus before the next
	// record is folded. It returns replayed if the record was decided before the
	// commit and is folded again only to rebuild the state; then it emits nothing.
	//
	// After an error that wraps ErrRetry the record is delivered again. A Fold that
	// returns such an error must not have emitted anything or changed the state. Any
	// other error ends the worker, as does a panic; the next owner of the partition
	// folds the record again.
	Fold(msg *message.Message, at bus.Position, emit Emit) (replayed bool, err error)
	// Commit returns the offset from which a successor must read, and what it must
	// know besides, for all records folded so far. It is called only when all output
	// is on the bus. State that is too large for the metadata of a commit is emitted,
	// and the commit refers to it (see decision 0022).
	Commit() (bus.Commit, error)
	// ProcessedTo returns the offset after the last record that is decided.
	ProcessedTo() int64
	// Replaying reports whether the machine still folds records that were decided
	// before the commit. Nothing is committed until it has caught up.
	Replaying() bool
	// NeededSince returns the append time of the oldest record that a successor
	// would have to read. It returns false if that is not known.
	NeededSince() (oona.Micros, bool)
	// Pace returns how often time must pass while no records come.
	Pace() Pace
}

// Emit adds a message for a topic to the outbox. The runtime publishes it, and tries
// again until the bus takes it. A message that is too large for the topic is dropped,
// counted and logged.
type Emit func(topic string, msg *message.Message)

// Pace says how a machine depends on time while no records come.
type Pace struct {
	// Open is the number of things that only time can close. A partition with none
	// is idle.
	Open int
	// TickInterval is the time without a record after which a partition that is
	// not idle gets a tick.
	TickInterval time.Duration
	// IdleTicks is how many ticks an idle partition gets, at least, within the time
	// that the topic keeps a record. 0: one in a quarter of an hour is enough.
	IdleTicks int64
}

// ErrRetry is wrapped by an error of Machine.Fold for a record that cannot be
// folded now and perhaps can be later.
var ErrRetry = errors.New("cannot fold a record yet")

// Opened is a machine and the offset from which its partition is read.
type Opened struct {
	Machine Machine
	From    int64 // first offset to read
	// CommitNow makes the first commit due before any record is folded, because it
	// says something that the last commit does not.
	CommitNow bool
}

// Config configures a Runtime.
type Config struct {
	// Name of the stage. Metrics are called oona_NAME_lag_records and so on.
	Name  string
	Topic string // whose partitions are folded
	// Open makes the machine of an assignment. After an error it is called again
	// later, unless Refuses returns true for the error: then the worker ends. While the
	// assignment is not Settled, records that seem to be missing may be there: then the
	// error must wrap bus.ErrShort, for which the worker never ends.
	Open    func(ctx context.Context, a bus.Assignment) (Opened, error)
	Refuses func(error) bool
	// Tick makes the record that lets time pass in a partition.
	Tick func(now time.Time) *message.Message
	// TickInterval is how often the runtime looks for quiet partitions while it has
	// none.
	TickInterval time.Duration
	// Retention returns how long the topic keeps a record; 0 means for ever. Nil if
	// that is not known.
	Retention func(context.Context) (time.Duration, error)
	Outputs   []string // the topics that machines emit to, for metrics
}
