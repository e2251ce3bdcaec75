package claimcheck_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/claimcheck/claimchecktest"
)

// says answers like S3, with an error code in XML.
func says(status int, code string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		if r.Method != http.MethodHead && code != "" {
			_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>of a test</Message></Error>`, code)
		}
	}
}

// forBodies answers requests without a body in another way, as these answers have no
// body with a code.
func forBodies(answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		answer(w, r)
	}
}

// page answers like a web server that is not S3.
func page(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "<html><body>hello</body></html>")
	}
}

// Each answer of a store, to the probe and to tensors of any size, is either a refusal
// that names the setting to change, or an outage.
func TestAnswersOfAStore(t *testing.T) {
	t.Parallel()
	const outage = ""
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	t.Cleanup(elsewhere.Close)
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		field  string
		reason string
	}{
		"region, 301 with its name": {says(301, "PermanentRedirect", "X-Amz-Bucket-Region", "eu-west-1"), "--s3-region", `"eu-west-1"`},
		"region, 301":               {says(301, "PermanentRedirect"), "--s3-region", "is not the bucket's region"},
		"region, 400":               {says(400, "AuthorizationHeaderMalformed"), "--s3-region", "is not the bucket's region"},
		"region, 307":               {says(307, "TemporaryRedirect", "Location", elsewhere.URL), "--s3-region", "is not the bucket's region"},
		"another redirect":          {says(302, "", "Location", elsewhere.URL), "--s3-endpoint", "status 302"},
		"expired token":             {says(400, "ExpiredToken"), "--s3-access-key-id", "has expired"},
		"expired token of a region": {says(400, "ExpiredToken", "X-Amz-Bucket-Region", "us-east-1"), "--s3-access-key-id", "has expired"},
		"unknown key":               {says(403, "InvalidAccessKeyId"), "--s3-access-key-id", "is not valid"},
		"wrong secret":              {says(403, "SignatureDoesNotMatch"), "--s3-access-key-id", "is not valid"},
		"unknown key, 404":          {says(404, "XAdminUserNotFound"), "--s3-access-key-id", "is not valid"}, // versitygw
		"not signed in":             {page(401), "--s3-access-key-id", "is not valid"},
		"no permission":             {says(403, "AccessDenied"), "--s3-access-key-id", "permissions"},
		"clock":                     {says(403, "RequestTimeTooSkewed"), "clock", "differs"},
		"no bucket":                 {says(404, "NoSuchBucket"), "--tensor-bucket", "does not exist"},
		"method":                    {says(405, "MethodNotAllowed"), "--s3-endpoint", "status 405"},
		"not implemented":           {says(501, "NotImplemented"), "--s3-endpoint", "status 501"},
		"unknown 400":               {says(400, "SomethingNew"), "--s3-endpoint", "status 400"},
		"another web server's 400":  {page(400), "--s3-endpoint", "status 400"},
		"another web server's 404":  {page(404), "--s3-endpoint", "status 404"},
		"it fails":                  {says(500, "InternalError"), outage, ""},
		"it is busy":                {says(503, "SlowDown"), outage, ""},
		"a proxy without it":        {page(502), outage, ""},
		"too many requests":         {page(429), outage, ""},
		"it was too slow for it":    {forBodies(says(400, "RequestTimeout")), outage, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answering := httptest.NewServer(c.answer)
			defer answering.Close()
			server := claimchecktest.Server{URL: answering.URL, AccessKeyID: "a", SecretAccessKey: "b"}
			store := claimchecktest.S3(t, server, bucket).Open(t, limit)
			asked := map[string]error{"probe": store.Probe(t.Context(), "ingest-1")}
			sizes := map[string]int{"small": small, "larger": 1 << 20, "large": large}
			if c.field == outage {
				sizes = nil // each is tried several times, with pauses; TestStoreFailsOnTheWayIn has them
			}
			for what, size := range sizes {
				_, _, asked[what] = store.CheckIn(t.Context(), bytes.NewReader(claimchecktest.Content(1, size)))
			}
			if name != "another web server's 404" { // what has no body may be an object that is absent
				_, asked["read"] = store.Bytes(t.Context(), oona.TensorClaim{Bucket: bucket, Key: claimcheck.Key([32]byte{}), Size: 1})
			}
			for what, err := range asked {
				if c.field == outage {
					if !errors.Is(err, claimcheck.ErrUnavailable) || errors.Is(err, claimcheck.ErrRefused) {
						t.Errorf("%s: error is %v, want an outage", what, err)
					}
					continue
				}
				wrong, _ := errors.AsType[*oona.FieldError](err)
				if !errors.Is(err, claimcheck.ErrRefused) || errors.Is(err, claimcheck.ErrUnavailable) || errors.Is(err, claimcheck.ErrNotFound) {
					t.Errorf("%s: error is %v, want a refusal", what, err)
				} else if wrong == nil || what == "probe" && (wrong.Field != c.field || !strings.Contains(wrong.Reason, c.reason)) {
					t.Errorf("%s: error is %v, want one of %s that says %q", what, err, c.field, c.reason)
				}
			}
		})
	}
}

// A server that is not S3 is noticed, even if it answers 200 to every request.
func TestNoS3Server(t *testing.T) {
	t.Parallel()
	page := httptest.NewServer(page(200))
	defer page.Close()
	for name, url := range map[string]string{"a page": page.URL, "http for https": strings.Replace(page.URL, "http:", "https:", 1)} {
		store := claimchecktest.S3(t, claimchecktest.Server{URL: url, AccessKeyID: "a", SecretAccessKey: "b"}, bucket).Open(t, limit)
		err := store.Probe(t.Context(), "ingest-1")
		wrong, _ := errors.AsType[*oona.FieldError](err)
		if !errors.Is(err, claimcheck.ErrRefused) || wrong == nil || wrong.Field != "--s3-endpoint" {
			t.Errorf("%s: error is %v", name, err)
		}
		if _, _, err := store.CheckIn(t.Context(), bytes.NewReader(claimchecktest.Content(1, large))); !errors.Is(err, claimcheck.ErrRefused) {
			t.Errorf("%s: of a tensor in parts the error is %v", name, err)
		}
	}
}

// If only the permission to list the bucket is missing, the error names it.
func TestProbeLooksForTheAbsent(t *testing.T) {
	fault := &faulty{match: func(r *http.Request) bool { return r.Method == http.MethodHead }, serve: answer(http.StatusForbidden)}
	err := claimchecktest.S3(t, startEmbedded(t, fault.wrap), bucket).Open(t, limit).Probe(t.Context(), "ingest-1")
	if !errors.Is(err, claimcheck.ErrRefused) || !strings.Contains(err.Error(), "s3:ListBucket") || fault.fired.Load() == 0 {
		t.Errorf("error is %v", err)
	}
}

// The probe writes only below its own prefix.
func TestProbeWritesUnderItsPrefix(t *testing.T) {
	var mu sync.Mutex
	var written []string
	fault := &faulty{match: put, serve: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		mu.Lock()
		written = append(written, r.URL.Path)
		mu.Unlock()
		next.ServeHTTP(w, r)
	}}
	store := claimchecktest.S3(t, startEmbedded(t, fault.wrap), bucket).Open(t, limit)
	for range 2 {
		if err := store.Probe(t.Context(), "ingest-1"); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range written {
		if path != "/"+bucket+"/"+claimcheck.ProbePrefix+"ingest-1" {
			t.Errorf("the probe writes %s", path)
		}
	}
	if len(written) != 3 { // the second is told that it is there, and overwrites it
		t.Errorf("the probe writes %d times", len(written))
	}
}

// A missing bucket is not reported as a missing tensor, for which a client would drop
// its frame.
func TestBucketIsGone(t *testing.T) {
	t.Parallel()
	server := startEmbedded(t, nil)
	store := claimchecktest.S3(t, server, bucket).Open(t, limit)
	claim, _, err := store.CheckIn(t.Context(), strings.NewReader("tensor"))
	if err != nil {
		t.Fatal(err)
	}
	gone, err := claimcheck.OpenS3(server.Config(t), "another-bucket", limit)
	if err != nil {
		t.Fatal(err)
	}
	claim.Bucket = "another-bucket"
	if err := gone.Confirm(t.Context(), claim); !errors.Is(err, claimcheck.ErrRefused) || errors.Is(err, claimcheck.ErrNotFound) {
		t.Errorf("confirm: %v", err)
	}
	if _, err := gone.Bytes(t.Context(), claim); !errors.Is(err, claimcheck.ErrRefused) {
		t.Errorf("bytes: %v", err)
	}
}

// If a server does not support conditional writes, the store writes without the
// condition, and omits it from then on.
func TestWithoutConditionalWrites(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]http.HandlerFunc{
		"501": says(501, "NotImplemented"), "405": says(405, "MethodNotAllowed"), "400": says(400, "InvalidArgument"), "400 without a body": says(400, ""),
	} {
		for _, probed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, probed %v", name, probed), func(t *testing.T) {
				fault := &faulty{
					match: func(r *http.Request) bool { return r.Header.Get("If-None-Match") != "" },
					serve: func(w http.ResponseWriter, r *http.Request, _ http.Handler) { refuse(w, r) },
				}
				place := claimchecktest.S3(t, startEmbedded(t, fault.wrap), bucket)
				store := place.Open(t, limit)
				if probed {
					if err := store.Probe(t.Context(), "ingest-1"); err != nil {
						t.Fatal(err)
					}
				}
				var keys []string
				for seed, size := range []int{large, small, 1 << 20} {
					content := claimchecktest.Content(uint64(seed), size)
					claim, fresh, err := store.CheckIn(t.Context(), bytes.NewReader(content))
					if err != nil || !fresh {
						t.Fatalf("%d bytes: fresh is %v, error %v", size, fresh, err)
					}
					if _, fresh, err := store.CheckIn(t.Context(), bytes.NewReader(content)); err != nil || fresh {
						t.Errorf("%d bytes again: fresh is %v, error %v", size, fresh, err)
					}
					if got, err := store.Bytes(t.Context(), claim); err != nil || !bytes.Equal(got, content) {
						t.Errorf("%d bytes come out as %d, error %v", size, len(got), err)
					}
					keys = append(keys, claim.Key)
				}
				if got := fault.fired.Load(); got != 1 {
					t.Errorf("the condition was asked for %d times, want 1", got)
				}
				if stored, unfinished := place.List(t); len(stored) != len(keys) || len(unfinished) != 0 {
					t.Errorf("left are %q and %q", stored, unfinished)
				}
			})
		}
	}
}

// No request has the encoding aws-chunked, which not all servers support and which the
// client prefers over TLS. Every body has a checksum.
func TestNoTrailersOnTheWire(t *testing.T) {
	var bodies atomic.Int64
	watch := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked") || r.Header.Get("X-Amz-Trailer") != "" || strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING") || r.ContentLength < 0 {
				t.Errorf("%s %s is sent with the headers %v", r.Method, r.URL, r.Header)
			}
			if put(r) {
				bodies.Add(1)
				if r.Header.Get("X-Amz-Checksum-Sha256")+r.Header.Get("X-Amz-Checksum-Crc32") == "" {
					t.Errorf("%s %s has no checksum", r.Method, r.URL)
				}
			}
			next.ServeHTTP(w, r)
		})
	}
	server, authority := startSecure(t, watch)
	config := server.Config(t)
	config.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(config.CAFile, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := claimcheck.OpenS3(config, bucket, limit)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Probe(t.Context(), "ingest-1"); err != nil {
		t.Fatal(err)
	}
	for seed, size := range []int{0, small, 8 << 20, large} {
		content := claimchecktest.Content(uint64(seed), size)
		claim, fresh, err := store.CheckIn(t.Context(), bytes.NewReader(content))
		if err != nil || !fresh || claim.SHA256 != sha256.Sum256(content) {
			t.Errorf("%d bytes: fresh is %v, error %v", size, fresh, err)
		}
	}
	if got := bodies.Load(); got != 1+3+2 {
		t.Errorf("%d bodies were sent, want 6", got)
	}
}

// A $TMPDIR that cannot be written to is this machine's fault, not the store's.
func TestTemporaryDirectory(t *testing.T) {
	for name, store := range map[string]claimchecktest.Store{
		"S3":        claimchecktest.S3(t, startEmbedded(t, nil), bucket).Open(t, limit),
		"directory": openDirectory(t, t.TempDir(), limit),
	} {
		t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
		_, _, err := store.CheckIn(context.Background(), bytes.NewReader(claimchecktest.Content(1, large)))
		for what, err := range map[string]error{"probe": store.Probe(t.Context(), "ingest-1"), "check in": err} {
			wrong, _ := errors.AsType[*oona.FieldError](err)
			if !errors.Is(err, claimcheck.ErrSpool) || errors.Is(err, claimcheck.ErrFull) || wrong == nil || wrong.Field != "$TMPDIR" {
				t.Errorf("%s, %s: error is %v", name, what, err)
			}
		}
		t.Setenv("TMPDIR", t.TempDir())
		if err := store.Probe(t.Context(), "ingest-1"); err != nil {
			t.Errorf("%s: with a good one: %v", name, err)
		}
	}
}

// The error for a path that is not a directory names the flag, at the start and later.
func TestDirectoryRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tensors")
	store := openDirectory(t, dir, limit)
	if err := store.Probe(t.Context(), "ingest-1"); err != nil {
		t.Fatal(err)
	}
	if left := filesBelow(t, dir, ""); len(left) != 0 {
		t.Errorf("the probe leaves %q", left)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, checkedIn := store.CheckIn(t.Context(), strings.NewReader("tensor"))
	_, opened := claimcheck.OpenDirectory(dir, bucket, limit)
	for what, err := range map[string]error{"probe": store.Probe(t.Context(), "ingest-1"), "check in": checkedIn, "open": opened} {
		wrong, _ := errors.AsType[*oona.FieldError](err)
		if !errors.Is(err, claimcheck.ErrRefused) || wrong == nil || wrong.Field != "--tensor-directory" {
			t.Errorf("%s: error is %v", what, err)
		}
	}
}
