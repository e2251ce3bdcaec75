package bus

import (
	"errors"
	"fmt"
	"strings"
)

// TopicChange is one change that Apply made.
type TopicChange struct {
	Topic string
	What  string
}

func (c TopicChange) String() string { return c.Topic + ": " + c.What }

// TopicsError lists the differences between topics and their specs.
type TopicsError struct{ Faults []TopicFault }

// TopicFault is one difference between a topic and its spec.
type TopicFault struct {
	Topic string
	Kind  FaultKind
	Fault string
	// Remedy says what to do. It is empty if that depends on the program that checks the
	// topics; the program then adds a text for the Kind.
	Remedy string
}

func (f TopicFault) String() string {
	if f.Remedy == "" {
		return f.Topic + " " + f.Fault
	}
	return f.Topic + " " + f.Fault + "; " + f.Remedy
}

// WrongPartitions returns the fault of a topic with another number of partitions than
// its spec.
func WrongPartitions(topic string, has, must int) TopicFault {
	return TopicFault{Topic: topic, Kind: FaultPartitions, Fault: fmt.Sprintf("has %s and must have %d", partitions(has), must)}
}

// UnequalPartitions returns the fault of a topic with another number of partitions than
// the topic that its spec names.
func UnequalPartitions(topic string, has int, like string, likeHas int) TopicFault {
	return TopicFault{Topic: topic, Kind: FaultUnequal, Fault: fmt.Sprintf("has %s and %s has %d, and the two must have the same number", partitions(has), like, likeHas)}
}

func partitions(n int) string {
	if n == 1 {
		return "1 partition"
	}
	return fmt.Sprintf("%d partitions", n)
}

// FaultKind is a kind of TopicFault.
type FaultKind int

// The kinds of faults.
const (
	FaultMissing    FaultKind = iota + 1 // the topic does not exist
	FaultPartitions                      // it has another number of partitions than the spec
	FaultUnequal                         // it has another number of partitions than TopicSpec.PartitionsOf
	FaultSetting                         // it has a setting that Apply corrects
	FaultSize                            // its limit is below TopicSpec.LeastMessageBytes
	FaultCopies                          // it has too few replicas
	FaultLimit                           // its limit is not TopicSpec.MaxMessageBytes
)

// WithoutLimits returns the faults of kind FaultLimit in an error of Check, and the error without
// them. If the limit of a topic is lower than in its spec, for example because the bus does not allow
// a higher one, everything works except for messages that are too large for it.
func WithoutLimits(err error) (limits []TopicFault, rest error) {
	wrong, ok := errors.AsType[*TopicsError](err)
	if !ok {
		return nil, err
	}
	var others []TopicFault
	for _, f := range wrong.Faults {
		if f.Kind == FaultLimit {
			limits = append(limits, f)
		} else {
			others = append(others, f)
		}
	}
	if len(limits) == 0 {
		return nil, err
	}
	if len(others) == 0 {
		return limits, nil
	}
	return limits, &TopicsError{Faults: others}
}

func (e *TopicsError) Error() string {
	var b strings.Builder
	b.WriteString("topics are not as they must be:")
	for _, f := range e.Faults {
		fmt.Fprintf(&b, "\n  %s", f)
	}
	return b.String()
}
