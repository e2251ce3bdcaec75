package loadgen

import (
	"context"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// late is the delay above which a producer logs a warning.
const late = time.Second

// producer sends the frames of one source in order, one request at a time.
type producer struct {
	sender
	source source
	clock  clock
	epoch  oona.Micros

	frame *oona.Frame // the next frame, nil after the last
	after oona.Micros
	warn  bool // the warning about the delay was logged
}

// batch is the content of a request.
type batch struct {
	path     string // to which it is sent; "": framesPath
	body     []byte
	frames   int
	events   int
	readings int
	tensors  int
	due      time.Time // of the first frame
}

func (p *producer) play(ctx context.Context) error {
	p.advance()
	var b batch
	for p.frame != nil || b.frames > 0 {
		if b.frames == 0 && !sleepUntil(ctx, p.clock.due(p.after)) {
			return context.Cause(ctx)
		}
		rest := p.fill(&b)
		p.lag(&b)
		if err := p.send(ctx, &b); err != nil {
			return err
		}
		b = rest
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *producer) advance() {
	var more bool
	if p.frame, p.after, more = p.source.next(); !more {
		p.frame = nil
	}
}

// fill adds the frames that are due to the batch. If a frame would make it too large,
// fill returns the next batch with this frame.
//
// Each batch has its own buffer, as a client may read a body after the answer.
func (p *producer) fill(b *batch) (rest batch) {
	now := time.Now()
	for p.frame != nil && b.frames < p.cfg.BatchFrames && len(b.body) < p.cfg.BatchBytes {
		due := p.clock.due(p.after)
		if due.After(now) {
			break
		}
		p.frame.Run, p.frame.Epoch = p.cfg.Run, p.epoch+p.frame.Epoch
		p.frame.ObservedAt = p.clock.observed(p.after, now)
		mark, readings, tensors := len(b.body), len(p.frame.Seeds), len(p.frame.Tensors)
		b.body = avro.AppendFrame(b.body, p.frame)
		p.advance()
		if b.frames > 0 && len(b.body) > p.cfg.BatchBytes {
			rest = batch{body: append([]byte(nil), b.body[mark:]...), frames: 1, readings: readings, tensors: tensors, due: due}
			b.body = b.body[:mark]
			break
		}
		if b.frames == 0 {
			b.due = due
		}
		b.frames++
		b.readings += readings
		b.tensors += tensors
	}
	return rest
}

// lag records how long after its due time the batch is sent.
func (p *producer) lag(b *batch) {
	if p.cfg.Speed == MaxSpeed {
		return
	}
	behind := time.Since(b.due)
	for {
		most := p.counts.behind.Load()
		if int64(behind) <= most || p.counts.behind.CompareAndSwap(most, int64(behind)) {
			break
		}
	}
	if behind > late && !p.warn {
		p.cfg.Logger.Warn("frames are sent late, as ingest or this machine is too slow; lower the speed or the rate",
			"behind", behind.Round(time.Millisecond))
	}
	p.warn = behind > late
}

// sleepUntil returns false if ctx is done first.
func sleepUntil(ctx context.Context, t time.Time) bool {
	wait := time.Until(t)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
