package deadletters

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// Redrive sends letters again.
type Redrive struct {
	Box       *Box
	Publisher bus.Publisher // to seed-metrics and to the topic of redrives
	Topics    oona.Topics
	Selection Selection
	Repair    Repair
	Checks    Checks
	Call      string  // identifies this call; the frames come over the path redrive/CALL
	By        string  // who sends them
	Rate      float64 // maximum number of letters per second; 0 means no limit
	DryRun    bool    // nothing is written

	Read   func()                                 // is called for each record that was read; may be nil
	Refuse func(l *Letter, reason, detail string) // is called for each letter that is not sent; may be nil

	checker *checker
	waiting []*sending
	report  *Report
	began   time.Time
	seen    map[string]bool // places that this call has sent, or would send
}

// Report is what a redrive has done.
type Report struct {
	DryRun    bool   `json:"dry_run"`
	Path      string `json:"path"`
	By        string `json:"by"`
	Repair    string `json:"repair,omitempty"`
	Selected  int    `json:"selected"`
	Redriven  int    `json:"redriven"`  // or would be
	Finished  int    `json:"finished"`  // those of them that an earlier call had begun
	Frames    int    `json:"frames"`    // of the redriven
	Done      int    `json:"done"`      // redriven before
	Discarded int    `json:"discarded"` // discarded before
	Repeats   int    `json:"repeats"`   // the same letters again
	Skipped   int    `json:"skipped"`   // left out by the filter
	// Refused are the letters that are not sent, by reason.
	Refused map[string]*Refused `json:"refused,omitempty"`
}

// Refused are letters that are not sent for the same reason.
type Refused struct {
	Count  int         `json:"count"`
	First  string      `json:"first"`  // the first of them
	Detail string      `json:"detail"` // about the first
	From   oona.Micros `json:"from"`   // when the first one was appended at its origin
	Until  oona.Micros `json:"until"`  // and the last one
}

// sending is a letter that is to be sent.
type sending struct {
	letter   *Letter
	outcome  Outcome
	messages []*message.Message
}

// Late returns the letters that are refused because their windows have closed, or nil.
func (r *Report) Late() *Refused { return r.Refused[refusedLate] }

// Run redrives. It returns a report with every error, too.
func (r *Redrive) Run(ctx context.Context) (*Report, error) {
	path := "redrive/" + r.Call
	r.report = &Report{DryRun: r.DryRun, Path: path, By: r.By, Repair: r.Repair.String(), Refused: make(map[string]*Refused)}
	r.checker, r.began, r.waiting, r.seen = newChecker(r.Checks, path, r.By), time.Now(), nil, make(map[string]bool)
	if !r.Box.Ledger.Found && !r.DryRun {
		return r.report, ErrNoLedger
	}
	err := r.Box.Each(ctx, &r.Selection, r.Read, func(l *Letter) error {
		if err := r.take(ctx, l); err != nil {
			return err
		}
		if len(r.waiting) < r.batch() {
			return nil
		}
		return r.flush(ctx)
	})
	if err == nil {
		err = r.flush(ctx)
	}
	return r.report, err
}

// batchLetters limits how many letters are sent together, or marked.
const batchLetters = 64

// batch returns how many letters are sent together.
func (r *Redrive) batch() int {
	if r.Rate <= 0 {
		return batchLetters
	}
	return int(min(max(r.Rate/4, 1), batchLetters))
}

// take prepares a letter.
func (r *Redrive) take(ctx context.Context, l *Letter) error {
	r.report.Selected++
	l.Outcome = r.Box.Ledger.Of(l) // another letter of the batch may have the same origin
	place := l.Origin.String()
	switch {
	case r.seen[place]:
		r.report.Repeats++
		return nil
	case l.Outcome.State == Done:
		r.report.Done++
		return nil
	case l.Outcome.State == Discarded:
		r.report.Discarded++
		return nil
	case l.Outcome.State == Unreadable:
		r.refuse(l, &refusal{refusedOutcome, fmt.Sprintf("what was done about it cannot be read, so it may have been sent: %v; look at the record with the key %s in the topic of redrives, and remove it with a tombstone", l.Outcome.err, place)})
		return nil
	}
	if why := refuse(&r.Topics, l); why != nil {
		r.refuse(l, why)
		return nil
	}
	s, why, err := r.prepare(ctx, l)
	switch {
	case err != nil:
		return err
	case why != nil:
		r.refuse(l, why)
	case s == nil:
		r.report.Skipped++
	default:
		r.seen[place] = true
		r.waiting = append(r.waiting, s)
	}
	return nil
}

func (r *Redrive) refuse(l *Letter, why *refusal) {
	if r.Refuse != nil {
		r.Refuse(l, why.reason, why.detail)
	}
	of := r.report.Refused[why.reason]
	if of == nil {
		of = &Refused{First: l.Side.Short(), Detail: why.detail, From: l.Appended, Until: l.Appended}
		r.report.Refused[why.reason] = of
	}
	of.Count++
	of.From, of.Until = min(of.From, l.Appended), max(of.Until, l.Appended)
}

// prepare makes the messages of a letter. It returns nil if the filter leaves the letter out. If an
// earlier call has begun to send the letter, prepare uses the frames of that call, whatever the
// repair is now, because they may be on the bus.
func (r *Redrive) prepare(ctx context.Context, l *Letter) (*sending, *refusal, error) {
	begun := l.Outcome.State == Pending
	value, repaired := l.Message.Payload, false
	var err error
	switch {
	case begun && l.Outcome.Frames != nil:
		value, repaired = l.Outcome.Frames, true
	case !begun:
		value, err = r.Repair.apply(ctx, l)
		repaired = !r.Repair.None()
	}
	var wrong *FilterError
	switch {
	case errors.As(err, &wrong), err != nil && ctx.Err() != nil:
		return nil, nil, err
	case err != nil:
		return nil, &refusal{refusedRepair, err.Error()}, nil
	case value == nil && repaired:
		return nil, nil, nil
	}
	messages, why, err := r.checker.messages(ctx, l, value, repaired)
	if err != nil {
		return nil, nil, fmt.Errorf("check %s: %w", l.Side.Short(), err)
	}
	if why == nil && !begun {
		why = r.checker.wrongTime(messages, time.Now())
	}
	if why == nil && !begun && l.Reason == reasonConflict {
		why = r.checker.sameIdentity(l, messages)
	}
	if why != nil {
		return nil, why, nil
	}
	return r.sending(l, messages, repaired)
}

func (r *Redrive) sending(l *Letter, messages []*message.Message, repaired bool) (*sending, *refusal, error) {
	frames := joined(messages)
	o := Outcome{
		Version: outcomeVersion, State: Pending, Side: l.Side.Short(), Letter: l.digest(), Sent: hexDigest(frames),
		Count: len(messages), Repair: r.Repair.String(), Call: r.Call, By: r.By, At: time.Now().UTC(),
	}
	if repaired {
		if o.Frames = frames; len(frames) > largest {
			return nil, &refusal{refusedSize, fmt.Sprintf("its repaired frames have %d bytes together, and at most %d can be kept until they are sent", len(frames), largest)}, nil
		}
	}
	if l.Outcome.State == Pending {
		if o.Repair = l.Outcome.Repair; o.Sent != l.Outcome.Sent {
			return nil, &refusal{refusedPending, "an earlier redrive has begun to send it, and made other frames of it; give the same --tensor-store and --inline-tensor-bytes as that one"}, nil
		}
	}
	return &sending{l, o, messages}, nil, nil
}

// flush sends the letters that wait: first it writes that they are pending, and in the
// end that they are done.
func (r *Redrive) flush(ctx context.Context) error {
	batch := r.waiting
	r.waiting = nil
	if len(batch) == 0 {
		return nil
	}
	if !r.DryRun {
		if err := r.pace(ctx); err != nil {
			return err
		}
		pending := make([]entry, len(batch))
		for i, s := range batch {
			pending[i] = entry{s.letter.Origin, &s.outcome}
		}
		if err := r.Box.Ledger.claim(ctx, r.Publisher, pending); err != nil {
			return err
		}
		sent, err := r.send(ctx, batch)
		if err != nil {
			return err
		}
		if batch, err = sent, r.done(ctx, sent); err != nil {
			return err
		}
	}
	for _, s := range batch {
		r.report.Redriven++
		r.report.Frames += len(s.messages)
		if s.letter.Outcome.State == Pending {
			r.report.Finished++
		}
	}
	return nil
}

// pace waits until the rate allows to send more.
func (r *Redrive) pace(ctx context.Context) error {
	if r.Rate > 0 {
		due := r.began.Add(time.Duration(float64(r.report.Redriven) / r.Rate * float64(time.Second)))
		bus.Pause(ctx, time.Until(due))
	}
	return ctx.Err()
}

// send publishes the frames in the order of their letters. It returns the letters whose
// frames were all taken.
func (r *Redrive) send(ctx context.Context, batch []*sending) (sent []*sending, err error) {
	var all []*message.Message
	for _, s := range batch {
		all = append(all, s.messages...)
	}
	err = r.Publisher.Publish(ctx, r.Topics.SeedMetrics, all...)
	if !errors.Is(err, bus.ErrTooLarge) {
		return batch, wrapSend(err)
	}
	var again []entry
	for _, s := range batch {
		taken, tooLarge, err := r.sendSingly(ctx, s.messages)
		switch {
		case err != nil:
			return nil, wrapSend(err)
		case tooLarge == nil:
			sent = append(sent, s)
		case taken == 0:
			r.refuse(s.letter, &refusal{refusedSize, tooLarge.Error()})
			again = append(again, entry{place: s.letter.Origin})
		default: // it stays pending, so that no other repair gives the frames that were taken another identity
			r.refuse(s.letter, &refusal{refusedSize, fmt.Sprintf("%d of its %d frames were sent, and the others are too large, so it is pending; raise max.message.bytes of %s and redrive it again, which sends the same frames, or discard it: %v", taken, len(s.messages), r.Topics.SeedMetrics, tooLarge)})
		}
	}
	return sent, r.Box.Ledger.finish(ctx, r.Publisher, again)
}

// sendSingly publishes messages one by one, as the bus refuses a batch because of one
// message. It returns how many were taken, and why others never are.
func (r *Redrive) sendSingly(ctx context.Context, messages []*message.Message) (taken int, tooLarge, err error) {
	for _, m := range messages {
		err := r.Publisher.Publish(ctx, r.Topics.SeedMetrics, m)
		switch {
		case errors.Is(err, bus.ErrTooLarge):
			tooLarge = err
		case err != nil:
			return taken, tooLarge, err
		default:
			taken++
		}
	}
	return taken, tooLarge, nil
}

func wrapSend(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("send the frames; what was sent is not known, so call the command again, which sends the same frames: %w", err)
}

func (r *Redrive) done(ctx context.Context, sent []*sending) error {
	entries := make([]entry, len(sent))
	for i, s := range sent {
		o := s.outcome
		o.State, o.Frames, o.At = Done, nil, time.Now().UTC()
		entries[i] = entry{s.letter.Origin, &o}
	}
	return r.Box.Ledger.finish(ctx, r.Publisher, entries)
}
