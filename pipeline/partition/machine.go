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
	// record is folded. It returns replayed if the record was already processed before
	// the commit, and is folded again only to rebuild the state; then it emits nothing.
	//
	// After an error that wraps ErrRetry the record is delivered again. A Fold that
	// returns such an error must not have emitted anything or changed the state. Any
	// other error ends the worker, as does a panic; the next owner of the partition
	// folds the record again.
	Fold(msg *message.Message, at bus.Position, emit Emit) (replayed bool, err error)
	// Commit returns a commit for all records that were folded so far: the offset from
	// which a successor must read, and the state that it needs besides. It is called
	// only when all output is on the bus. State that is too large for the metadata of a
	// commit is emitted as a record, and the commit refers to it (see decision 0022).
	Commit() (bus.Commit, error)
	// ProcessedTo returns the offset after the last record that was processed.
	ProcessedTo() int64
	// Replaying reports whether the machine still folds records that were processed
	// before the commit. Nothing is committed until it has caught up.
	Replaying() bool
	// NeededSince returns the append time of the oldest record that a successor
	// would have to read. It returns false if that is not known.
	NeededSince() (oona.Micros, bool)
	// Pace returns how often the machine needs a tick while no records arrive.
	Pace() Pace
}

// Emit adds a message for a topic to the outbox. The runtime publishes it, and tries
// again until the bus accepts it. A message that is too large for the topic is dropped,
// counted and logged.
type Emit func(topic string, msg *message.Message)

// Pace says how often a machine needs ticks while no records arrive.
type Pace struct {
	// Open is the number of things, such as windows, that stay open until time advances. If it is
	// 0, the partition is idle.
	Open int
	// TickInterval is the time without a record after which a partition that is
	// not idle gets a tick.
	TickInterval time.Duration
	// IdleTicks is the minimum number of ticks that an idle partition gets within the
	// time for which the topic keeps a record. With 0, one in a quarter of an hour is enough.
	IdleTicks int64
}

// ErrRetry is wrapped by an error of Machine.Fold if the record cannot be folded now, but
// perhaps later.
var ErrRetry = errors.New("cannot fold a record yet")

// Opened is a machine and the offset from which its partition is read.
type Opened struct {
	Machine Machine
	From    int64 // first offset to read
	// CommitNow makes the first commit due before any record is folded, because it has
	// something new that the last commit does not have.
	CommitNow bool
}

// Config configures a Runtime.
type Config struct {
	// Name of the stage. Metrics are called oona_NAME_lag_records and so on.
	Name  string
	Topic string // the topic whose partitions are folded
	// Open makes the machine of an assignment. After an error it is called again
	// later, unless Refuses returns true for the error: then the worker ends. While the
	// assignment is not Settled, records that seem to be missing may still appear. In that
	// case the error must wrap bus.ErrShort, for which the worker never ends.
	Open    func(ctx context.Context, a bus.Assignment) (Opened, error)
	Refuses func(error) bool
	// Tick makes the record that advances the time of a partition's log.
	Tick func(now time.Time) *message.Message
	// TickInterval is how often the runtime looks for quiet partitions while it has no
	// partitions.
	TickInterval time.Duration
	// Retention returns how long the topic keeps a record; 0 means for ever. It is nil if
	// that is not known.
	Retention func(context.Context) (time.Duration, error)
	Outputs   []string // the topics that machines emit to, for metrics
}
