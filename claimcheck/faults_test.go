package claimcheck_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/claimcheck/claimchecktest"
)

// faulty breaks requests that match, and counts them.
type faulty struct {
	match func(*http.Request) bool
	serve func(w http.ResponseWriter, r *http.Request, next http.Handler)
	fired atomic.Int64
	came  chan struct{} // closed when it fires first; nil if nobody waits for that
}

func (f *faulty) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.match(r) {
			if f.fired.Add(1) == 1 && f.came != nil {
				close(f.came)
			}
			f.serve(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func answer(status int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(status) }
}

// hang answers when the client has disconnected.
func hang(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body) // the server notices only then
	<-r.Context().Done()
}

// flip changes a bit of the body on its way to the store.
func flip(w http.ResponseWriter, r *http.Request, next http.Handler) {
	body, err := io.ReadAll(r.Body)
	if err == nil && len(body) > 0 {
		body[len(body)/2] ^= 1
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	next.ServeHTTP(w, r)
}

func put(r *http.Request) bool { return r.Method == http.MethodPut }
func get(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Query().Get("list-type") == "" && !r.URL.Query().Has("uploads")
}
func part(r *http.Request) bool { return put(r) && r.URL.Query().Get("partNumber") == "2" }
func complete(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
}

// expiring is a context whose deadline comes when the fault happens.
type expiring struct {
	context.Context
	fault *faulty
}

func (e *expiring) Done() <-chan struct{} { return e.fault.came }

func (e *expiring) Err() error {
	select {
	case <-e.fault.came:
		return context.DeadlineExceeded
	default:
		return e.Context.Err()
	}
}

// meet calls try, and checks that the fault has happened and that the error is want. If the
// store hangs, the deadline of try comes when the request has reached it.
func (f *faulty) meet(t *testing.T, hangs bool, want error, try func(context.Context) error) {
	t.Helper()
	ctx := t.Context()
	if hangs {
		f.came = make(chan struct{})
		ctx = &expiring{ctx, f}
	}
	if err := try(ctx); !errors.Is(err, want) || f.fired.Load() == 0 {
		t.Fatalf("the fault happened %d times; the error is %v, want one that is %v", f.fired.Load(), err, want)
	}
}

const (
	small = 20_000
	large = 9 << 20 // two parts
	limit = 20 << 20
)

// Whatever the store does during a check-in, the error says so, and nothing is left
// in the store.
func TestStoreFailsOnTheWayIn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		size  int
		match func(*http.Request) bool
		serve func(http.ResponseWriter, *http.Request, http.Handler)
		want  error
	}{
		"fails":                  {small, put, answer(http.StatusInternalServerError), claimcheck.ErrUnavailable},
		"overloaded":             {small, put, answer(http.StatusServiceUnavailable), claimcheck.ErrUnavailable},
		"slow":                   {small, put, hang, claimcheck.ErrUnavailable},
		"full":                   {small, put, answer(http.StatusInsufficientStorage), claimcheck.ErrFull},
		"forbidden":              {small, put, answer(http.StatusForbidden), claimcheck.ErrRefused},
		"bytes change":           {small, put, flip, claimcheck.ErrUnavailable},
		"conflicts":              {small, put, answer(http.StatusConflict), claimcheck.ErrUnavailable},
		"fails at a part":        {large, part, answer(http.StatusInternalServerError), claimcheck.ErrUnavailable},
		"slow at a part":         {large, part, hang, claimcheck.ErrUnavailable},
		"full at a part":         {large, part, answer(http.StatusInsufficientStorage), claimcheck.ErrFull},
		"bytes change in a part": {large, part, flip, claimcheck.ErrUnavailable},
		"fails at the end":       {large, complete, answer(http.StatusInternalServerError), claimcheck.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fault := &faulty{match: c.match, serve: c.serve}
			place := claimchecktest.S3(t, startEmbedded(t, fault.wrap), bucket)
			store := place.Open(t, limit)
			fault.meet(t, strings.HasPrefix(name, "slow"), c.want, func(ctx context.Context) error {
				_, _, err := store.CheckIn(ctx, bytes.NewReader(claimchecktest.Content(1, c.size)))
				return err
			})
			if keys, unfinished := place.List(t); len(keys)+len(unfinished) != 0 {
				t.Errorf("left are %q and %q", keys, unfinished)
			}
		})
	}
}

// Content that fits one part is sent in one request.
func TestPartsBeginAboveTheirSize(t *testing.T) {
	for size, want := range map[int]int64{8 << 20: 0, 8<<20 + 1: 1} {
		parts := &faulty{match: func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploads") }}
		parts.serve = func(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) }
		store := claimchecktest.S3(t, startEmbedded(t, parts.wrap), bucket).Open(t, limit)
		if _, fresh, err := store.CheckIn(t.Context(), bytes.NewReader(claimchecktest.Content(1, size))); err != nil || !fresh {
			t.Errorf("%d bytes: fresh is %v, error %v", size, fresh, err)
		}
		if got := parts.fired.Load(); got != want {
			t.Errorf("%d bytes are %d uploads in parts, want %d", size, got, want)
		}
	}
}

// S3 asks one of two concurrent writers to try again.
func TestConflictPasses(t *testing.T) {
	for _, size := range []int{small, large} {
		fault := new(faulty)
		fault.match = func(r *http.Request) bool {
			return fault.fired.Load() == 0 && (size == small && put(r) || complete(r))
		}
		fault.serve = answer(http.StatusConflict)
		place := claimchecktest.S3(t, startEmbedded(t, fault.wrap), bucket)
		_, fresh, err := place.Open(t, limit).CheckIn(t.Context(), bytes.NewReader(claimchecktest.Content(1, size)))
		if err != nil || !fresh || fault.fired.Load() != 1 {
			t.Errorf("fresh is %v, error %v, after %d conflicts", fresh, err, fault.fired.Load())
		}
		if keys, unfinished := place.List(t); len(keys) != 1 || len(unfinished) != 0 {
			t.Errorf("left are %q and %q", keys, unfinished)
		}
	}
}

// A broken connection is not reported as wrong content.
func TestStoreFailsOnTheWayOut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		serve func(http.ResponseWriter, *http.Request, http.Handler)
		want  error
	}{
		"fails": {answer(http.StatusInternalServerError), claimcheck.ErrUnavailable},
		"slow":  {hang, claimcheck.ErrUnavailable},
		"breaks off": {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Length", "20000")
			_, _ = w.Write(make([]byte, 100))
			panic(http.ErrAbortHandler)
		}, claimcheck.ErrUnavailable},
		"other bytes": {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			_, _ = w.Write(make([]byte, small))
		}, claimcheck.ErrMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fault := &faulty{match: get, serve: c.serve}
			store := claimchecktest.S3(t, startEmbedded(t, fault.wrap), bucket).Open(t, limit)
			claim, _, err := store.CheckIn(t.Context(), bytes.NewReader(claimchecktest.Content(1, small)))
			if err != nil {
				t.Fatal(err)
			}
			fault.meet(t, strings.HasPrefix(name, "slow"), c.want, func(ctx context.Context) error {
				data, err := store.Bytes(ctx, claim)
				if data != nil {
					t.Errorf("%d bytes with the error %v", len(data), err)
				}
				return err
			})
		})
	}
}

func TestStoreIsDown(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	store := claimchecktest.S3(t, claimchecktest.Server{URL: gone.URL, AccessKeyID: "a", SecretAccessKey: "b"}, bucket).Open(t, limit)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := store.Probe(ctx, "ingest-1"); !errors.Is(err, claimcheck.ErrUnavailable) {
		t.Errorf("probe: %v", err)
	}
	if _, _, err := store.CheckIn(ctx, strings.NewReader("tensor")); !errors.Is(err, claimcheck.ErrUnavailable) {
		t.Errorf("check in: %v", err)
	}
}

func TestWrongCredentials(t *testing.T) {
	server := startEmbedded(t, nil)
	server.SecretAccessKey = "another"
	if err := claimchecktest.S3(t, server, bucket).Open(t, limit).Probe(t.Context(), "ingest-1"); !errors.Is(err, claimcheck.ErrRefused) {
		t.Errorf("with another secret: %v", err)
	}
	config := server.Config(t)
	config.SecretFile = filepath.Join(t.TempDir(), "missing")
	_, err := claimcheck.OpenS3(config, bucket, limit)
	if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != "--s3-secret-access-key-file" {
		t.Errorf("without the file: %v", err)
	}
}

func TestNoSuchBucket(t *testing.T) {
	server := startEmbedded(t, nil)
	store := claimchecktest.S3(t, server, "another-bucket").Open(t, limit)
	if err := store.Probe(t.Context(), "ingest-1"); !errors.Is(err, claimcheck.ErrRefused) {
		t.Errorf("probe: %v", err)
	}
	if _, _, err := store.CheckIn(t.Context(), strings.NewReader("tensor")); !errors.Is(err, claimcheck.ErrRefused) {
		t.Errorf("check in: %v", err)
	}
}

// A certificate of an unknown authority is always refused.
func TestCertificates(t *testing.T) {
	t.Parallel()
	secure, authority := startSecure(t, nil)
	config := secure.Config(t)
	store, err := claimcheck.OpenS3(config, bucket, limit)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Probe(t.Context(), "ingest-1"); !errors.Is(err, claimcheck.ErrRefused) {
		t.Errorf("with the system's authorities: %v", err)
	}
	config.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(config.CAFile, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	if store, err = claimcheck.OpenS3(config, bucket, limit); err != nil {
		t.Fatal(err)
	}
	if err := store.Probe(t.Context(), "ingest-1"); err != nil {
		t.Errorf("with its authority: %v", err)
	}
	if err := os.WriteFile(config.CAFile, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = claimcheck.OpenS3(config, bucket, limit)
	if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != "--s3-ca-file" {
		t.Errorf("with rubbish for an authority: %v", err)
	}
}
