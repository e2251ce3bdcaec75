package loadgen

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	firstPause = 100 * time.Millisecond
	longPause  = 5 * time.Second
	// longestWait limits the wait that Retry-After asks for.
	longestWait = time.Minute
	// problemBytes limits how much of an answer is read.
	problemBytes = 64 << 10

	framesPath = "/v1/frames"
)

// sender sends batches to ingest. It retries with the same bytes, so that a frame that
// ingest has accepted already is folded once.
type sender struct {
	cfg    *Config
	client *http.Client
	counts *counters
}

// Refusal is an answer of ingest other than success.
type Refusal struct {
	Status int
	Title  string // of the problem, or the text of the status
	Detail string // of the problem, or the beginning of the body
	after  time.Duration
}

func (r *Refusal) Error() string {
	if r.Detail == "" {
		return fmt.Sprintf("ingest answered %d %s", r.Status, r.Title)
	}
	return fmt.Sprintf("ingest answered %d %s: %s", r.Status, r.Title, r.Detail)
}

// passing reports whether the same request may succeed later.
func (r *Refusal) passing() bool {
	return r.Status >= 500 || r.Status == http.StatusTooManyRequests || r.Status == http.StatusRequestTimeout
}

func (s *sender) send(ctx context.Context, b *batch) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = firstPause, longPause
	s.counts.sent.Add(int64(b.frames))
	s.counts.eventsSent.Add(int64(b.events))
	attempt := func() (struct{}, error) {
		s.counts.bytes.Add(int64(len(b.body)))
		return struct{}{}, retriable(s.post(ctx, cmp.Or(b.path, framesPath), b.body))
	}
	_, err := backoff.Retry(ctx, attempt,
		backoff.WithBackOff(pauses),
		backoff.WithMaxElapsedTime(s.cfg.DeliveryTimeout),
		backoff.WithNotify(func(err error, wait time.Duration) {
			s.counts.retries.Add(1)
			s.cfg.Logger.Warn("sending again", "frames", b.frames, "events", b.events, "wait", wait, "err", err)
		}))
	if err == nil {
		s.counts.acknowledged.Add(int64(b.frames))
		s.counts.eventsAcknowledged.Add(int64(b.events))
		s.counts.readings.Add(int64(b.readings))
		s.counts.tensors.Add(int64(b.tensors))
		return nil
	}
	if refusal, ok := errors.AsType[*Refusal](err); ok && !refusal.passing() {
		s.counts.refused.Add(int64(b.frames))
	}
	return fmt.Errorf("sending %d frames and %d events to %s: %w", b.frames, b.events, s.cfg.URL, err)
}

// retriable converts an error for package backoff, which retries all errors except a
// refusal that will not pass.
func retriable(err error) error {
	refusal, ok := errors.AsType[*Refusal](err)
	switch {
	case !ok:
		return err
	case !refusal.passing():
		return backoff.Permanent(err)
	case refusal.after > 0:
		return fmt.Errorf("%w; %w", err, &backoff.RetryAfterError{Duration: min(refusal.after, longestWait)})
	}
	return err
}

// post makes one attempt. It continues when ctx is done, so that the outcome is known,
// but not beyond the request timeout.
func (s *sender) post(ctx context.Context, path string, body []byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.RequestTimeout)
	defer cancel()
	endpoint := strings.TrimSuffix(s.cfg.URL, "/") + path
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return backoff.Permanent(err)
	}
	request.Header.Set("Content-Type", "application/avro")
	request.Header.Set("Oona-Sent-At", strconv.FormatInt(time.Now().UnixMicro(), 10))
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, problemBytes))
	switch {
	case response.StatusCode == http.StatusOK || response.StatusCode == http.StatusAccepted:
		return nil // even if the body could not be read: ingest has accepted the frames
	case err != nil:
		return fmt.Errorf("reading the answer: %w", err)
	}
	return refusal(response, answer)
}

// refusal parses an answer, which is application/problem+json or text.
func refusal(response *http.Response, answer []byte) *Refusal {
	r := &Refusal{
		Status: response.StatusCode,
		Title:  http.StatusText(response.StatusCode),
		after:  retryAfter(response.Header.Get("Retry-After"), time.Now()),
	}
	var problem struct{ Title, Detail string }
	if json.Unmarshal(answer, &problem) == nil && problem.Title+problem.Detail != "" {
		if problem.Title != "" {
			r.Title = problem.Title
		}
		r.Detail = problem.Detail
		return r
	}
	const most = 200
	r.Detail = strings.TrimSpace(string(answer[:min(len(answer), most)]))
	return r
}

// retryAfter parses the header Retry-After: seconds, or a date. It returns 0 for others.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return at.Sub(now)
	}
	return 0
}
