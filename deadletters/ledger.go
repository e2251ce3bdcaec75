package deadletters

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// State says whether a letter is open, or was redriven or discarded.
type State string

// The states of letters.
const (
	Open      State = "open"      // nothing
	Pending   State = "pending"   // it is being sent again, or that was cut off
	Done      State = "done"      // it was sent again
	Discarded State = "discarded" // nobody needs it

	// Unreadable means that the topic of redrives has a record about the letter that cannot
	// be read. So nothing is done about the letter until that record is removed: its frames
	// may have been sent.
	Unreadable State = "unreadable"
)

// Outcome is the value of a record in the topic of redrives. Its key is the Place of
// origin.
type Outcome struct {
	Version int       `json:"version"`
	State   State     `json:"state"`
	Side    string    `json:"side"`             // where the letter is: TOPIC/PARTITION/OFFSET
	Letter  string    `json:"letter"`           // SHA-256 of the letter's value
	Sent    string    `json:"sent,omitempty"`   // SHA-256 of the frames that are sent
	Frames  []byte    `json:"frames,omitempty"` // those of a repaired letter that is pending, one after the other
	Count   int       `json:"count,omitempty"`
	Repair  string    `json:"repair,omitempty"`
	Call    string    `json:"call"` // which call of the command has written it
	By      string    `json:"by"`
	At      time.Time `json:"at"`

	err error // of an Unreadable one
}

const outcomeVersion = 1

// errOutcome means that a record is no outcome.
var errOutcome = errors.New("it does not say what was done")

// decodeOutcome decodes the value of a record of the topic of redrives.
func decodeOutcome(value []byte) (o Outcome, err error) {
	if err := json.Unmarshal(value, &o); err != nil {
		return o, fmt.Errorf("%w: %w", errOutcome, err)
	}
	switch {
	case o.Version > outcomeVersion:
		return o, fmt.Errorf("%w: version %d", ErrVersion, o.Version)
	case o.Version < 1:
		return o, fmt.Errorf("%w: version %d", errOutcome, o.Version)
	case o.State != Pending && o.State != Done && o.State != Discarded:
		return o, fmt.Errorf("%w: the state is %.100q", errOutcome, o.State)
	}
	return o, nil
}

// after returns the outcome that counts if o is appended after was. Two calls may work on
// a letter at the same time.
func (o Outcome) after(was Outcome) Outcome {
	switch {
	case was.Letter != o.Letter:
	case o.State == Pending: // the first one counts: its frames may be on the bus
		return was
	case o.State == Discarded && was.State == Done:
		return was
	case o.State == Discarded && was.State == Pending && o.Sent == "": // Discard.Undo needs the frames
		o.Sent, o.Frames, o.Count, o.Repair = was.Sent, was.Frames, was.Count, was.Repair
	}
	return o
}

// ErrVersion means that a later version of Oona has written an outcome.
var ErrVersion = errors.New("a later version of Oona has written it")

// ErrOtherRedrive means that another redrive or discard of the same letters is running.
var ErrOtherRedrive = errors.New("another redrive or discard works on the same letters")

// ErrNoLedger means that the topic of redrives does not exist.
var ErrNoLedger = errors.New("the topic of redrives does not exist; create it with: oona topics apply")

// Ledger is the content of the topic of redrives. It is not safe for concurrent use.
type Ledger struct {
	Found bool // whether the topic exists

	bus      bus.Bus
	topic    string
	logger   *slog.Logger
	outcomes map[string]Outcome // outcomes by Place
	next     int64              // first offset that was not read
}

// OpenLedger reads the topic.
func OpenLedger(ctx context.Context, b bus.Bus, topics oona.Topics, logger *slog.Logger) (*Ledger, error) {
	l := &Ledger{Found: true, bus: b, topic: topics.Redrives, logger: logger, outcomes: make(map[string]Outcome)}
	err := l.readOn(ctx)
	if errors.Is(err, bus.ErrNoTopic) {
		l.Found, err = false, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was done about dead letters: %w", err)
	}
	return l, nil
}

// Of returns the outcome for a letter. An outcome for another content at the same place does not
// count, because a topic may have been deleted and made again.
func (l *Ledger) Of(letter *Letter) Outcome {
	o, found := l.outcomes[letter.Origin.String()]
	if !found || o.Letter != letter.digest() && o.State != Unreadable {
		return Outcome{State: Open}
	}
	return o
}

// readOn reads what has been appended. It warns of records that cannot be read.
func (l *Ledger) readOn(ctx context.Context) error {
	unreadable := make(map[string]int64) // offsets by key
	err := l.bus.Read(ctx, l.topic, bus.Range{From: l.next, End: math.MaxInt64}, func(msg *message.Message) error {
		at, err := bus.PositionOf(msg)
		if err != nil {
			return err
		}
		l.next = at.Offset + 1
		key := string(at.Key)
		delete(unreadable, key)
		if len(msg.Payload) == 0 {
			delete(l.outcomes, key)
			return nil
		}
		o, err := decodeOutcome(msg.Payload)
		if err != nil {
			o, unreadable[key] = Outcome{State: Unreadable, err: err}, at.Offset
		} else if was, found := l.outcomes[key]; found {
			o = o.after(was)
		}
		l.outcomes[key] = o
		return nil
	})
	for key, offset := range unreadable {
		l.logger.Warn("a record of the topic of redrives cannot be read: nothing is done about the dead letter of its key; to remove the record, publish one with the same key and no value (a tombstone)",
			"topic", l.topic, "offset", offset, "key", key, "err", l.outcomes[key].err)
	}
	return err
}

// entry is an outcome of a place; a nil outcome removes it.
type entry struct {
	place   Place
	outcome *Outcome
}

// publish appends outcomes.
func (l *Ledger) publish(ctx context.Context, publisher bus.Publisher, entries []entry) error {
	if len(entries) == 0 {
		return nil
	}
	messages := make([]*message.Message, len(entries))
	for i, e := range entries {
		var value []byte
		if e.outcome != nil {
			var err error
			if value, err = json.Marshal(e.outcome); err != nil {
				return err
			}
		}
		messages[i] = bus.NewMessage(value, bus.Target{Key: []byte(e.place.String()), Directed: true})
	}
	if err := publisher.Publish(ctx, l.topic, messages...); err != nil {
		return fmt.Errorf("write what is done about dead letters to %s: %w", l.topic, err)
	}
	return nil
}

// write appends outcomes and reads on. It returns the entries that do not count, each with
// the outcome that counts instead, as another call has written something about the same
// letter in the meantime. These outcomes are appended again, so that they still count after
// the topic was compacted.
func (l *Ledger) write(ctx context.Context, publisher bus.Publisher, entries []entry) (foreign []entry, err error) {
	if err := l.publish(ctx, publisher, entries); err != nil {
		return nil, err
	}
	if err := l.readOn(ctx); err != nil {
		return nil, err
	}
	last := make(map[Place]*Outcome) // a place may have two entries
	for _, e := range entries {
		last[e.place] = e.outcome
	}
	for place, wrote := range last {
		o, found := l.outcomes[place.String()]
		switch {
		case !found && wrote != nil:
			foreign = append(foreign, entry{place: place})
		case found && (wrote == nil || o.State != wrote.State || o.Sent != wrote.Sent):
			foreign = append(foreign, entry{place, &o})
		}
	}
	return foreign, l.publish(ctx, publisher, foreign)
}

// finish appends outcomes of letters that are claimed.
func (l *Ledger) finish(ctx context.Context, publisher bus.Publisher, entries []entry) error {
	if err := l.publish(ctx, publisher, entries); err != nil {
		return err
	}
	for _, e := range entries {
		if e.outcome == nil {
			delete(l.outcomes, e.place.String())
		} else {
			l.outcomes[e.place.String()] = *e.outcome
		}
	}
	return nil
}

// claim writes that letters are pending, and ensures that no other call has written
// anything about them in the meantime. If one has, the error wraps ErrOtherRedrive.
func (l *Ledger) claim(ctx context.Context, publisher bus.Publisher, entries []entry) error {
	foreign, err := l.write(ctx, publisher, entries)
	if err != nil || len(foreign) == 0 {
		return err
	}
	by := "another call"
	if o := foreign[0].outcome; o != nil {
		by = o.By
	}
	return fmt.Errorf("%w: %s, by %s; wait until it has ended, and try again", ErrOtherRedrive, foreign[0].place, by)
}
