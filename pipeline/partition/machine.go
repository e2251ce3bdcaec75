package partition

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// Machine folds the records of one partition, from the offset on at which it was
// opened. Its methods are never called concurrently.
type Machine interface {
	// Fold folds a record. What it emits is on the bus before the next record is
	// folded. It reports whether the record was decided before the commit, and is
	// folded again only to rebuild what is open; then nothing is emitted.
	//
	// After an error that wraps ErrRetry the record comes again. Any other error
	// ends the worker, as does a panic.
	Fold(msg *message.Message, at bus.Position, emit Emit) (replayed bool, err error)
	// Commit returns the offset from which a successor must read, and what it must
	// know besides, for all records folded so far. It is called only when all that
	// was emitted is on the bus. State that does not fit into the metadata of a
	// commit is emitted, and the commit says where it is.
	Commit() (bus.Commit, error)
	// ProcessedTo returns the offset after the last record that is decided.
	ProcessedTo() int64
	// Replaying reports whether records are folded that were decided before the
	// commit: until they are, nothing new can be committed.
	Replaying() bool
	// NeededSince returns the append time of the oldest record that a successor
	// would have to read; false: it is not known.
	NeededSince() (oona.Micros, bool)
	// Pace returns how often time must go on while no record comes.
	Pace() Pace
}

// Emit hands over a message for a topic.
type Emit func(topic string, msg *message.Message)

// Pace is how a machine depends on time while no record comes.
type Pace struct {
	// Open counts what only time can close. A partition without any is idle.
	Open int
	// TickInterval is the time without a record after which a partition that is
	// not idle gets a tick.
	TickInterval time.Duration
	// IdleTicks is how many ticks an idle partition gets, at least, within the time
	// that the topic keeps a record.
	IdleTicks int64
}

// ErrRetry is wrapped by an error of Machine.Fold for a record that cannot be
// folded now, and perhaps later.
var ErrRetry = errors.New("cannot fold a record yet")

// Opened is a machine and where its partition is read from.
type Opened struct {
	Machine Machine
	From    int64 // first offset to read
	// CommitNow has the first commit made before any record is folded: it keeps
	// something that the last one does not say.
	CommitNow bool
}

// Config configures a Runtime.
type Config struct {
	// Name is that of the stage, as it is in the names of metrics:
	// oona_NAME_lag_records.
	Name  string
	Topic string // whose partitions are folded
	// Open makes the machine of an assignment, or returns why that cannot be done
	// now. Refuses says of such an error that to ask again would not help: then
	// the worker ends with it.
	Open    func(ctx context.Context, a bus.Assignment) (Opened, error)
	Refuses func(error) bool
	// Tick makes the record with which time goes on in a partition.
	Tick func(now time.Time) *message.Message
	// TickInterval is how often partitions are looked at while none is assigned.
	TickInterval time.Duration
	// Retention asks how long the topic keeps a record; 0: for ever. Nil: it is not
	// known.
	Retention func(context.Context) (time.Duration, error)
	Outputs   []string // the topics that machines emit to, for metrics
}
