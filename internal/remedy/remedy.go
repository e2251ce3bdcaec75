// Package remedy adds to errors of the bus what users can do about them. Package bus
// does not know flags and commands; this package does.
package remedy

import (
	"errors"
	"fmt"

	"github.com/morphogenetic/oona/bus"
)

var faults = map[bus.FaultKind]string{
	bus.FaultMissing:    "run `oona topics apply`",
	bus.FaultPartitions: "give --partitions the number that the topic has, or use new topics (--prefix); Oona never changes the number, because keys would move to other partitions",
	bus.FaultUnequal:    "use new topics (--prefix), or delete this topic if it is not needed, and run `oona topics apply`",
	bus.FaultSetting:    "run `oona topics apply`",
	bus.FaultLimit:      "run `oona topics apply`; if the brokers do not allow this size, larger messages of the topic are lost, and counted",
	bus.FaultSize:       "run `oona topics apply --max-message-bytes` with that size",
}

// Add returns err with advice on what to do about it. Errors that it does not know are
// returned unchanged.
func Add(err error) error {
	if wrong, ok := errors.AsType[*bus.TopicsError](err); ok {
		for i, f := range wrong.Faults {
			if f.Remedy == "" {
				wrong.Faults[i].Remedy = faults[f.Kind]
			}
		}
		return err
	}
	if moved, ok := errors.AsType[*bus.PartitionsError](err); ok {
		return fmt.Errorf("%w: layers would move away from their open windows; create topics with that number of partitions (oona topics apply --prefix NEW --partitions %d) and restart ingest, aggregate and exporter with that --prefix, and aggregate with another --group if aggregators of the old topics still run", err, moved.Has)
	}
	switch {
	case errors.Is(err, bus.ErrUnreachable):
		return fmt.Errorf("%w; is it running, and are --brokers right?", err)
	case errors.Is(err, bus.ErrCredentials):
		return fmt.Errorf("%w; see that --bus-sasl is a mechanism of the listener, and that --bus-sasl-username and the file of --bus-sasl-password-file (or --bus-sasl-token-file) are right", err)
	case errors.Is(err, bus.ErrDenied):
		return fmt.Errorf("%w; give the user of this program the ACLs that docs/security.md lists", err)
	case errors.Is(err, bus.ErrNoTopic):
		return fmt.Errorf("%w; run `oona topics apply`, or give the --prefix that its name begins with", err)
	case errors.Is(err, bus.ErrForeignAssignment):
		return fmt.Errorf("%w; if another installation uses the consumer group, give each its own --group; if --prefix was changed, start again when the old session has timed out (10 s), or run oona group remove INSTANCE before", err)
	case errors.Is(err, bus.ErrInstance):
		return fmt.Errorf("%w; give each worker another --group-instance", err)
	}
	return err
}
