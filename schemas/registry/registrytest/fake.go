// Package registrytest has a schema registry for tests: franz-go's, with answers that a
// test may replace.
package registrytest

import (
	"net/http"
	"net/http/httptest"
	"path"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/schemas/registry"
)

// Fake is a registry in this process.
type Fake struct {
	URL    string
	Config registry.Config // of a client

	t        testing.TB
	schemas  *srfake.Registry
	handler  http.HandlerFunc
	requests atomic.Int64
	sent     atomic.Pointer[string] // the last Authorization
	answer   atomic.Pointer[http.HandlerFunc]
}

// Start starts a registry that ends with the test. Unless authorization is empty, requests
// need a header with that value.
func Start(t testing.TB, authorization string) *Fake {
	t.Helper()
	f := &Fake{t: t, schemas: srfake.NewRegistry(srfake.WithAuth(authorization))}
	f.handler = func(w http.ResponseWriter, r *http.Request) {
		f.requests.Add(1)
		header := r.Header.Get("Authorization")
		f.sent.Store(&header)
		switch answer := f.answer.Load(); {
		case answer != nil:
			(*answer)(w, r)
		case path.Base(r.URL.Path) == "types" && (authorization == "" || header == authorization): // srfake does not have it
			_, _ = w.Write([]byte(`["AVRO"]`)) // the client may be gone
		default:
			f.schemas.Handler().ServeHTTP(w, r)
		}
	}
	server := httptest.NewServer(f.handler)
	t.Cleanup(server.Close)
	f.URL = server.URL
	f.Config = registry.Config{URLs: []string{server.URL}}
	return f
}

// RoundTrip answers a request without a connection, for tests in a bubble of synctest.
func (f *Fake) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	f.handler(w, r)
	return w.Result(), nil
}

// Requests returns how many requests there were.
func (f *Fake) Requests() int64 { return f.requests.Load() }

// Authorization returns the header of the last request.
func (f *Fake) Authorization() string { return *f.sent.Load() }

// Answer sets the answer to all further requests.
func (f *Fake) Answer(status int, body string) {
	f.AnswerBy(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body)) // the client may be gone
	})
}

// AnswerBy sets the function that answers all further requests. With nil, the registry answers them again.
func (f *Fake) AnswerBy(answer http.HandlerFunc) {
	if answer == nil {
		f.answer.Store(nil)
		return
	}
	f.answer.Store(&answer)
}

// Handler answers as the registry does.
func (f *Fake) Handler() http.Handler { return f.schemas.Handler() }

// Register adds a schema and returns its id.
func (f *Fake) Register(subject, text string, references ...sr.SchemaReference) avro.SchemaID {
	f.t.Helper()
	id, _, err := f.schemas.RegisterSchema(subject, sr.Schema{Schema: text, References: references})
	if err != nil {
		f.t.Fatal(err)
	}
	return avro.SchemaID{Number: int32(id)} //nolint:gosec // the fake counts from 1
}

// GUID returns the GUID of the first version of a subject.
func (f *Fake) GUID(subject string) string {
	f.t.Helper()
	found, ok := f.schemas.GetSchema(subject, 1)
	if !ok {
		f.t.Fatalf("there is no subject %s", subject)
	}
	return found.GUID
}
