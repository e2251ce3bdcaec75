package remotewrite

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// receiver is where samples are sent to.
type receiver struct {
	url           string
	authorization func() string
	client        *http.Client
}

// requestTimeout bounds a request with its answer.
const requestTimeout = 30 * time.Second

// verdict says what an answer means for the samples of a request.
type verdict string

const (
	accepted  verdict = "accepted"
	refused   verdict = "refused"   // at least one sample is refused; others may have been stored
	tooLarge  verdict = "too-large" // the request is too large
	throttled verdict = "throttled" // there were too many requests; try again later
	away      verdict = "away"      // there is no answer, or the receiver has failed; try again later
	denied    verdict = "denied"    // an operator must act
)

var verdicts = []verdict{accepted, refused, tooLarge, throttled, away, denied}

// reason says why a sample is skipped.
type reason string

const (
	outOfOrder   reason = "out-of-order" // a later sample of its series is stored
	tooOld       reason = "too-old"
	duplicate    reason = "duplicate" // another value of its series and time is stored
	noHistograms reason = "histograms"
	sampleSize   reason = "too-large"
	invalid      reason = "invalid"  // anything else
	repeated     reason = "repeated" // sent by the owner before; see delivery.sentBefore
)

var reasons = []reason{outOfOrder, tooOld, duplicate, noHistograms, sampleSize, invalid, repeated}

// answer is what the receiver says to a request.
type answer struct {
	verdict verdict
	reason  reason        // of refused
	after   time.Duration // that the receiver asks to wait
	err     error         // nil if accepted
}

// send posts samples once.
func (r *receiver) send(ctx context.Context, series []prompb.TimeSeries) answer {
	message, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	if err != nil {
		return answer{verdict: refused, reason: invalid, err: fmt.Errorf("encode samples: %w", err)}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(snappy.Encode(nil, message)))
	if err != nil {
		return answer{verdict: denied, err: err}
	}
	request.Header.Set("Content-Encoding", "snappy")
	request.Header.Set("Content-Type", "application/x-protobuf")
	request.Header.Set("User-Agent", "oona-exporter")
	request.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	if r.authorization != nil {
		if value := r.authorization(); value != "" {
			request.Header.Set("Authorization", value)
		}
	}
	response, err := r.client.Do(request)
	if err != nil {
		return answer{verdict: unanswered(err), err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 16<<10))
	if err != nil && response.StatusCode/100 != 2 {
		return answer{verdict: away, err: fmt.Errorf("the answer %s ends early: %w", response.Status, err)}
	}
	return judge(response, strings.TrimSpace(string(body)))
}

// unanswered says what it means that a request has no answer.
func unanswered(err error) verdict {
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	if untrusted || plain {
		return denied
	}
	return away
}

// errAnswer is wrapped by the error of each answer that is not a success.
var errAnswer = errors.New("the remote-write receiver does not accept the samples")

// judge says what an answer means. The protocol says only that 4xx must not be repeated
// unchanged and that 5xx may be. Which sample of a request was refused, and why, is in no
// field of the answer: the reason is taken from words that Prometheus, Mimir, Thanos and
// VictoriaMetrics use.
func judge(response *http.Response, body string) answer {
	code := response.StatusCode
	if code/100 == 2 {
		return answer{verdict: accepted}
	}
	a := answer{
		after: retryAfter(response.Header.Get("Retry-After"), time.Now()),
		err:   fmt.Errorf("%w: %s: %.500s", errAnswer, response.Status, body),
	}
	text := strings.ToLower(body)
	switch {
	case strings.Contains(text, "native histograms are disabled"): // with 500 from Prometheus 2
		a.verdict, a.reason = refused, noHistograms
	case code == http.StatusInternalServerError && strings.Contains(text, "too old sample"):
		// Prometheus up to 2.42, if the samples are older than its window for samples out of
		// order. It never takes them, so to wait would not help.
		a.verdict, a.reason = refused, tooOld
	case code == http.StatusBadRequest || code == http.StatusConflict || code == http.StatusUnprocessableEntity:
		a.verdict, a.reason = refused, reasonOf(text)
	case code == http.StatusRequestEntityTooLarge:
		a.verdict = tooLarge
	case code == http.StatusTooManyRequests:
		a.verdict = throttled
	case code/100 == 5 || code == http.StatusRequestTimeout:
		a.verdict = away
	default:
		a.verdict = denied
		if to := response.Header.Get("Location"); to != "" {
			a.err = fmt.Errorf("%w (it redirects to %s; give the URL of the receiver itself)", a.err, to)
		}
	}
	return a
}

func reasonOf(text string) reason {
	for _, words := range []struct {
		reason reason
		any    []string
	}{
		{duplicate, []string{"duplicate sample", "duplicate-timestamp", "duplicate timestamp", "new-value-for-timestamp", "different value but same timestamp"}},
		{tooOld, []string{"too old", "too-old", "out of bounds", "too far behind", "too-far-behind"}},
		{outOfOrder, []string{"out of order", "out-of-order"}},
	} {
		for _, w := range words.any {
			if strings.Contains(text, w) {
				return words.reason
			}
		}
	}
	return invalid
}

// longestRetryAfter bounds what the receiver may ask for.
const longestRetryAfter = 5 * time.Minute

// retryAfter returns the wait that a header Retry-After asks for.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil || errors.Is(err, strconv.ErrRange) { // then it is the greatest
		return min(time.Duration(seconds)*time.Second, longestRetryAfter)
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(max(at.Sub(now), 0), longestRetryAfter)
	}
	return 0
}

// noRedirect makes a redirection an answer: following it would turn a POST into a GET, or
// send credentials to another server.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
