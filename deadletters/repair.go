package deadletters

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Repair describes the changes to the frames of letters before they are sent again.
type Repair struct {
	Epoch  oona.Micros   // replaces producer_epoch, unless it is 0
	Shift  time.Duration // is added to observed_at
	Filter string        // a command of the shell that gets a letter and answers with its repaired form
}

// None reports whether nothing is changed.
func (r Repair) None() bool { return r == Repair{} }

// String describes the repair for people.
func (r Repair) String() string {
	var parts []string
	if r.Epoch != 0 {
		parts = append(parts, fmt.Sprintf("producer_epoch %d", r.Epoch))
	}
	if r.Shift != 0 {
		parts = append(parts, fmt.Sprintf("observed_at shifted by %s", r.Shift))
	}
	if r.Filter != "" {
		parts = append(parts, "filter "+r.Filter)
	}
	return strings.Join(parts, ", ")
}

// FilterError is an answer of a filter that cannot be used, or its failure.
type FilterError struct {
	Letter Place // in its side topic
	Reason string
}

func (e *FilterError) Error() string {
	return fmt.Sprintf("the filter failed for %s: %s", e.Letter.Short(), e.Reason)
}

// Line is a letter as a filter gets it, and as it answers.
type Line struct {
	Place    string            `json:"place"` // in the side topic
	From     string            `json:"from"`  // where the record was before
	Appended time.Time         `json:"appended"`
	Reason   string            `json:"reason"`
	Detail   string            `json:"detail,omitempty"`
	Frames   []json.RawMessage `json:"frames,omitempty"` // as POST /v1/frames takes them
	// Value is the value of a record that cannot be decoded, in base64.
	Value []byte `json:"value,omitempty"`
}

// NewLine returns the line of a letter.
func NewLine(l *Letter) *Line {
	line := &Line{Place: l.Side.Short(), From: l.Origin.String(), Appended: l.Appended.Time(), Reason: l.Reason, Detail: l.Detail}
	decoder := avro.FrameDecoder{Limits: anyFrame}
	var err error
	if line.Frames, err = decodeFrames(&decoder, l.Message.Payload); err != nil {
		line.Frames, line.Value = nil, l.Message.Payload
	}
	return line
}

// errUndecodable means that a repair needs the frames of a letter that has none.
var errUndecodable = errors.New("its frames cannot be decoded, so that their epoch and time cannot be changed; give --filter, which gets the bytes")

// apply returns the repaired value of a letter, or nil if the filter leaves it out.
func (r Repair) apply(ctx context.Context, l *Letter) (value []byte, err error) {
	if r.None() {
		return l.Message.Payload, nil
	}
	line := NewLine(l)
	if r.Epoch != 0 || r.Shift != 0 {
		if line.Frames == nil {
			return nil, errUndecodable
		}
		for i, frame := range line.Frames {
			if line.Frames[i], err = r.change(frame); err != nil {
				return nil, err
			}
		}
	}
	if r.Filter != "" {
		if line, err = r.filter(ctx, l, line); line == nil || err != nil {
			return nil, err
		}
	}
	if line.Frames == nil {
		return line.Value, nil
	}
	return json.Marshal(line.Frames)
}

// change sets the epoch and shifts the time of a frame.
func (r Repair) change(frame json.RawMessage) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(frame, &fields); err != nil {
		return nil, fmt.Errorf("%w (%w)", errUndecodable, err)
	}
	if r.Epoch != 0 {
		fields["producer_epoch"] = strconv.AppendInt(nil, int64(r.Epoch), 10)
	}
	if r.Shift != 0 {
		was, err := strconv.ParseInt(string(bytes.TrimSpace(fields["observed_at"])), 10, 64)
		if err != nil {
			return nil, &oona.FieldError{Field: "observed_at", Reason: "is not a number of microseconds, so it cannot be shifted; give --filter"}
		}
		fields["observed_at"] = strconv.AppendInt(nil, was+r.Shift.Microseconds(), 10)
	}
	return json.Marshal(fields)
}

// filterTime limits how long a filter may take for one letter.
const filterTime = time.Minute

// filterBytes limits what a filter may write for one letter.
const filterBytes = 64 << 20

// bounded takes no more than most bytes.
type bounded struct {
	content bytes.Buffer // not embedded, as its ReadFrom has no limit
	most    int
	full    bool
}

var errFilterBytes = errors.New("the filter writes too much")

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.full = b.full || b.content.Len()+len(p) > b.most; b.full {
		return 0, errFilterBytes
	}
	return b.content.Write(p)
}

// filter runs the program for one letter. It returns nil if the letter is to be left out.
func (r Repair) filter(ctx context.Context, l *Letter, line *Line) (*Line, error) {
	bad := func(format string, args ...any) error { return &FilterError{l.Side, fmt.Sprintf(format, args...)} }
	input, err := json.Marshal(line)
	if err != nil {
		return nil, bad("the letter cannot be written as JSON: %v", err)
	}
	limited, cancel := context.WithTimeout(ctx, filterTime)
	defer cancel()
	program := exec.CommandContext(limited, "/bin/sh", "-c", r.Filter)
	program.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that what it starts ends with it
	program.Cancel = func() error { return syscall.Kill(-program.Process.Pid, syscall.SIGKILL) }
	program.WaitDelay = time.Second // if something that it has started keeps the output open
	program.Stdin = bytes.NewReader(append(input, '\n'))
	out, says := bounded{most: filterBytes}, bounded{most: filterBytes}
	program.Stdout, program.Stderr = &out, &says
	err = program.Run()
	if program.Process != nil {
		_ = syscall.Kill(-program.Process.Pid, syscall.SIGKILL) // fails if nothing is left of the group
	}
	switch {
	case out.full || says.full:
		return nil, bad("it wrote more than %d bytes: %.200s", filterBytes, out.content.Bytes())
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && limited.Err() != nil:
		return nil, bad("it did not end within %s", filterTime)
	case errors.Is(err, exec.ErrWaitDelay):
		return nil, bad("it ended, but a program that it started in the background kept its output open; let it wait for that program")
	case err != nil && says.content.Len() == 0:
		return nil, bad("%v", err)
	case err != nil:
		return nil, bad("%v: %.500s", err, strings.TrimSpace(says.content.String()))
	}
	answer := bytes.TrimSpace(out.content.Bytes())
	if len(answer) == 0 {
		return nil, nil
	}
	var mended Line
	decoder := json.NewDecoder(bytes.NewReader(answer))
	if err := decoder.Decode(&mended); err != nil {
		return nil, bad("its answer is not the letter as JSON: %v: %.200s", err, answer)
	}
	if decoder.More() {
		return nil, bad("its answer has more than one line of JSON: %.200s", answer)
	}
	if len(mended.Frames) == 0 && len(mended.Value) == 0 {
		return nil, bad("its answer has neither frames nor a value; write nothing to leave the letter out: %.200s", answer)
	}
	return &mended, nil
}
