package deadletters

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Checks are those that ingest makes of records of the raw topic.
type Checks struct {
	Intake       intake.Config // Claims is not used
	MaxBodyBytes int64
	Store        *claimcheck.Store // if it is nil, large tensors stay in their frames

	// Schema finds schemas in a schema registry, as in intake.Batch. It is nil if there is no registry.
	Schema func(avro.SchemaID) (*avro.FrameSchema, *intake.Refusal)

	// MaxSkew and MaxDelay are those of the windows: a frame that is observed later than
	// now by more than MaxSkew, or earlier by more than MaxDelay, would be quarantined
	// again. 0: any time is right.
	MaxSkew, MaxDelay time.Duration
}

// Reasons for which a letter is not sent again, besides those of intake.
const (
	refusedLate    = "late"
	refusedOwn     = "own-record"
	refusedForeign = "not-frames"
	refusedEmpty   = "empty"
	refusedLeftOut = "left-out"
	refusedRepair  = "repair"
	refusedTensors = "tensors"
	refusedPending = "pending"
	refusedSize    = "too-large"
	refusedFuture  = "future"
	refusedStale   = "stale"
	refusedSame    = "conflict"
	refusedOutcome = "unreadable"
)

// reasonConflict is the reason of letters whose frames have the identity of another frame.
const reasonConflict = "conflict"

// refusal says why a letter is not sent again.
type refusal struct{ reason, detail string }

// refuse returns the reason why a letter can never be sent again, even after a repair, or nil.
func refuse(topics *oona.Topics, l *Letter) *refusal {
	switch {
	case l.Side.Topic == topics.Late:
		return &refusal{refusedLate, "its window has closed, or is not emitted, so it would be late again"}
	case !isFrames(topics, l):
		return &refusal{refusedForeign, fmt.Sprintf("it is not of a topic of frames, but of %s; only the aggregator writes there, and oona replay --aggregate --publish computes rollups again", l.Origin.Topic)}
	case l.Message.Metadata.Get(oona.HeaderRecord) != "":
		return &refusal{refusedOwn, fmt.Sprintf("it is one of Oona's own records (%s), which hold only at their place in the log; write the setting again with oona windows apply or oona topics apply", l.Message.Metadata.Get(oona.HeaderRecord))}
	}
	return nil
}

// isFrames reports whether the records of the letter's side topic are frames.
func isFrames(topics *oona.Topics, l *Letter) bool {
	switch l.Side.Topic {
	case topics.Late, topics.Quarantine, topics.Overflow, topics.SeedMetricsDead, topics.SeedRawDead:
		return true
	}
	return false
}

// checker makes the messages of letters.
type checker struct {
	Checks
	path    string // of oona.HeaderPath
	by      string
	decoder *intake.Decoder
	frames  avro.FrameDecoder // of what the decoder has accepted
}

func newChecker(c Checks, path, by string) *checker {
	if c.Store != nil {
		c.Intake.Claims = c.Store
	}
	return &checker{Checks: c, path: path, by: by, decoder: intake.NewDecoder(c.Intake.Frame), frames: avro.FrameDecoder{Limits: c.Intake.Frame}}
}

// messages returns the frames of a value as messages for seed-metrics. repaired is true if the value
// is not the original one of the letter.
func (c *checker) messages(ctx context.Context, l *Letter, value []byte, repaired bool) ([]*message.Message, *refusal, error) {
	if len(value) == 0 {
		return nil, refuseEmpty(l), nil
	}
	in := message.NewMessage("", value)
	if schema := l.Message.Metadata.Get(intake.RegistrySchemaHeader); schema != "" && !repaired {
		in.Metadata.Set(intake.RegistrySchemaHeader, schema)
	}
	batch := c.Intake.NewBatch()
	batch.Path, batch.Trace, batch.Schema = c.path, l.Message.Metadata.Get(oona.HeaderTraceparent), c.Schema
	if refused := c.decoder.Record(in, batch, c.MaxBodyBytes); refused != nil {
		if refused.Retry > 0 {
			return nil, nil, fmt.Errorf("%w: %s", errLater, refused.Detail)
		}
		return nil, &refusal{string(refused.Reason), refused.Detail}, nil
	}
	for _, m := range batch.Messages {
		m.Metadata.Set(oona.HeaderRedrivenFrom, l.Origin.String())
		m.Metadata.Set(oona.HeaderRedrivenBy, c.by)
	}
	for i := range batch.Tensors {
		if refused, err := c.keep(ctx, &batch.Tensors[i]); refused != nil || err != nil {
			return nil, refused, err
		}
	}
	return batch.Messages, nil, nil
}

// errLater means that the same may be accepted later.
var errLater = errors.New("it cannot be checked now")

// wrongTime returns why frames would be quarantined again, or nil.
func (c *checker) wrongTime(messages []*message.Message, now time.Time) *refusal {
	var frame oona.Frame
	for _, m := range messages {
		if _, err := c.frames.Decode(m.Payload, &frame); err != nil {
			return &refusal{refusedRepair, err.Error()} // cannot be: it was just accepted
		}
		at := frame.ObservedAt.Time()
		switch ahead := at.Sub(now); {
		case c.MaxSkew > 0 && ahead > c.MaxSkew:
			return &refusal{refusedFuture, fmt.Sprintf("observed at %s, which is %s from now: more than %s, so it would be quarantined again; shift its time (--shift-time), or wait", at.Format(time.RFC3339), ahead.Round(time.Second), c.MaxSkew)}
		case c.MaxDelay > 0 && -ahead > c.MaxDelay:
			return &refusal{refusedStale, fmt.Sprintf("observed at %s, %s ago: more than %s, so it would be quarantined again; if the clock was wrong, shift its time (--shift-time)", at.Format(time.RFC3339), (-ahead).Round(time.Second), c.MaxDelay)}
		}
	}
	return nil
}

// sameIdentity returns why frames of a letter with a conflict would conflict again, or nil
// if each of them has another identity now, or belongs to another time.
func (c *checker) sameIdentity(l *Letter, messages []*message.Message) *refusal {
	type identity struct {
		run      oona.RunID
		producer oona.ProducerID
		epoch    oona.Micros
		sequence int64
		at       oona.Micros
	}
	var was, is oona.Frame
	of := func(f *oona.Frame) identity {
		return identity{f.Run, f.Producer, f.Epoch, f.Sequence, f.ObservedAt}
	}
	if _, err := c.frames.Decode(l.Message.Payload, &was); err != nil {
		return nil // it cannot have been refused for this reason by an aggregator
	}
	for _, m := range messages {
		if _, err := c.frames.Decode(m.Payload, &is); err == nil && of(&is) == of(&was) {
			return &refusal{refusedSame, fmt.Sprintf("frame %d of producer %s was folded with other content, so this one would conflict again; give it an identity of its own (--set-producer-epoch), or discard it", is.Sequence, is.Producer)}
		}
	}
	return nil
}

// refuseEmpty refuses a letter without a value.
func refuseEmpty(l *Letter) *refusal {
	// Only the text of pipeline.WithoutPayload says that there was one.
	if strings.Contains(l.Detail, "is left out") {
		return &refusal{refusedLeftOut, "its value is not in the side topic: " + l.Detail}
	}
	return &refusal{refusedEmpty, "the record has no value, so there is nothing to send: discard it"}
}

// keep ensures that a tensor is in the store. The error means that the store may accept
// it later.
func (c *checker) keep(ctx context.Context, t *intake.Tensor) (*refusal, error) {
	var err error
	if t.Content == nil {
		err = c.Store.Confirm(ctx, t.Claim)
	} else {
		_, _, err = c.Store.CheckIn(ctx, bytes.NewReader(t.Content))
	}
	for _, final := range []error{claimcheck.ErrNotFound, claimcheck.ErrMismatch, claimcheck.ErrTooLarge, claimcheck.ErrForeign} {
		if errors.Is(err, final) {
			return &refusal{refusedTensors, fmt.Sprintf("%s: %v", t.Field(), err)}, nil
		}
	}
	return nil, err
}

// joined returns the values of messages, one after the other, as a raw record has them.
func joined(messages []*message.Message) (all []byte) {
	for _, m := range messages {
		all = append(all, m.Payload...)
	}
	return all
}

// largest is the largest value that the topic of redrives is given: what a side topic
// takes, less what JSON and base64 need.
const largest = oona.MaxSideBytes * 5 / 8
