package registry_test

import (
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/schemas/registry"
	"github.com/morphogenetic/oona/schemas/registry/registrytest"
)

// published returns the text of a published schema.
func published(t testing.TB, name string) string {
	t.Helper()
	text := ""
	for _, s := range avro.Schemas() {
		if s.Name == name {
			text = s.Text
		}
	}
	if text == "" {
		t.Fatalf("there is no schema %s", name)
	}
	return text
}

const frameName = "kasmina.telemetry.SeedMetrics"

func open(t testing.TB, c registry.Config) *registry.Registry {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	r, err := registry.Open(c, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A schema is looked up once, however many ask for it at the same time.
func TestASchemaIsLookedUpOnce(t *testing.T) {
	t.Parallel()
	f := registrytest.Start(t, "")
	id := f.Register("raw-value", published(t, frameName))
	r := open(t, f.Config)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if s, err := r.Frame(t.Context(), id); err != nil || !s.Published() {
				t.Errorf("%v, %v", s, err)
			}
		})
	}
	all.Wait()
	if n := f.Requests(); n != 1 {
		t.Errorf("the registry got %d requests", n)
	}
	if _, known, err := r.Known(id); !known || err != nil {
		t.Errorf("known: %v, %v", known, err)
	}
}

// A GUID names a schema, too.
func TestAGUID(t *testing.T) {
	t.Parallel()
	f := registrytest.Start(t, "")
	f.Register("raw-value", published(t, frameName))
	text := f.GUID("raw-value")
	id := guid(t, text)
	if id.UUID() != text {
		t.Errorf("%s, not %s", id.UUID(), text)
	}
	r := open(t, f.Config)
	if s, err := r.Frame(t.Context(), id); err != nil || !s.Published() {
		t.Errorf("%v, %v", s, err)
	}
	if _, err := r.Frame(t.Context(), guid(t, "01234567-89ab-cdef-0123-456789abcdef")); !errors.Is(err, registry.ErrUnknownID) {
		t.Errorf("another is answered %v", err)
	}
}

func guid(t testing.TB, text string) (id avro.SchemaID) {
	t.Helper()
	var bytes []byte
	if _, err := fmt.Sscanf(strings.ReplaceAll(text, "-", ""), "%x", &bytes); err != nil || len(bytes) != len(id.GUID) {
		t.Fatal(text, err)
	}
	header := "\x01" + string(bytes)
	id, err := avro.ParseSchemaID(header)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// What a registry answers tells three things apart: it does not have the id, the schema is
// not one of frames, and nobody knows.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"unknown id":          {404, `{"error_code":40403,"message":"Schema 7 not found"}`, registry.ErrUnknownID},
		"not a registry":      {404, `<html>not found</html>`, registry.ErrNoRegistry},
		"not its base":        {404, `{"error_code":404,"message":"HTTP 404 Not Found"}`, registry.ErrNoRegistry},
		"credentials":         {401, `{"error_code":40101,"message":"Unauthorized"}`, registry.ErrCredentials},
		"permission":          {403, `{"error_code":40301,"message":"User is denied operation Read"}`, registry.ErrCredentials},
		"busy":                {429, `slow down`, registry.ErrAway},
		"store":               {500, `{"error_code":50001,"message":"Error in the backend data store"}`, registry.ErrAway},
		"a page":              {200, `<html>sign in</html>`, registry.ErrAway},
		"no schema":           {200, `{}`, avro.ErrUnreadable},
		"protobuf":            {200, `{"schemaType":"PROTOBUF","schema":"syntax = \"proto3\";"}`, avro.ErrUnreadable},
		"not a record":        {200, `{"schema":"\"string\""}`, avro.ErrUnreadable},
		"another record":      {200, `{"schema":"{\"type\":\"record\",\"name\":\"A\",\"fields\":[]}"}`, avro.ErrUnreadable},
		"an answer too large": {200, `{"schema":"` + strings.Repeat("x", 5<<20) + `"}`, registry.ErrAway},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := registrytest.Start(t, "")
			f.Answer(c.status, c.body)
			if s, err := open(t, f.Config).Frame(t.Context(), avro.SchemaID{Number: 7}); !errors.Is(err, c.want) || s != nil {
				t.Errorf("%v, %v", s, err)
			} else if len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// A new schema may not be on each server of the registry yet: a denial counts when it has
// been repeated.
func TestADenialIsRepeated(t *testing.T) {
	t.Parallel()
	f := registrytest.Start(t, "")
	id := f.Register("raw-value", published(t, frameName))
	var asked atomic.Int64
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"error_code":40403,"message":"Schema not found"}`))
			return
		}
		f.Handler().ServeHTTP(w, r)
	})
	f.AnswerBy(answer)
	if _, err := open(t, f.Config).Frame(t.Context(), id); err != nil {
		t.Error(err)
	}
}

// While the registry does not answer, the schemas in the cache file are used. When it answers again
// and is a new one, its answer is used instead.
func TestTheCacheFile(t *testing.T) {
	t.Parallel()
	f := registrytest.Start(t, "")
	f.Config.Cache = filepath.Join(t.TempDir(), "schemas.json")
	id := f.Register("raw-value", published(t, frameName))
	if _, err := open(t, f.Config).Frame(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	f.Answer(503, "")
	if s, err := open(t, f.Config).Frame(t.Context(), id); err != nil || !s.Published() {
		t.Errorf("from the file: %v, %v", s, err)
	}
	r := open(t, f.Config)
	if _, err := r.Frame(t.Context(), avro.SchemaID{Number: 99}); !errors.Is(err, registry.ErrAway) {
		t.Errorf("what the file does not have is answered %v", err)
	}
	if s, err := r.Frame(t.Context(), id); err != nil || !s.Published() {
		t.Errorf("from the file, after a lookup has failed: %v, %v", s, err)
	}
	f.Answer(200, `{"schema":"\"string\""}`)
	if _, err := open(t, f.Config).Frame(t.Context(), id); !errors.Is(err, avro.ErrUnreadable) {
		t.Errorf("after the registry was made anew: %v", err)
	}

	// A file of another registry says nothing.
	f.Answer(503, "")
	f.Config.URLs = append(f.Config.URLs, "http://127.0.0.1:1")
	if _, err := open(t, f.Config).Frame(t.Context(), id); !errors.Is(err, registry.ErrAway) {
		t.Errorf("with the file of another registry: %v", err)
	}
	if err := os.WriteFile(f.Config.Cache, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, f.Config).Frame(t.Context(), id); !errors.Is(err, registry.ErrAway) {
		t.Errorf("with a file that is cut off: %v", err)
	}
}

// After a failure, lookups fail at once for a moment. Then the registry is asked again.
func TestAnOutageEnds(t *testing.T) {
	t.Parallel()
	f := registrytest.Start(t, "")
	id := f.Register("raw-value", published(t, frameName))
	r := open(t, f.Config)
	f.Answer(503, "")
	for range 10 {
		if _, err := r.Frame(t.Context(), id); !errors.Is(err, registry.ErrAway) {
			t.Fatal(err)
		}
	}
	if n := f.Requests(); n > 3 {
		t.Errorf("the registry got %d requests", n)
	}
	f.AnswerBy(nil)
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := r.Frame(t.Context(), id); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// A schema may refer to others, which are looked up, too.
func TestReferences(t *testing.T) {
	t.Parallel()
	f := registrytest.Start(t, "")
	const column = `{"type":"record","name":"MetricColumn","namespace":"kasmina.telemetry","fields":[{"name":"name","type":"string"},{"name":"values","type":{"type":"array","items":"float"}}]}`
	f.Register("column", column)
	whole := published(t, frameName)
	begin, end := strings.Index(whole, `{
      "type": "record", "name": "MetricColumn"`), strings.Index(whole, `}, "default": []}`)
	text := whole[:begin] + `"kasmina.telemetry.MetricColumn"` + whole[end:]
	id := f.Register("raw-value", text, sr.SchemaReference{Name: "kasmina.telemetry.MetricColumn", Subject: "column", Version: 1})
	if s, err := open(t, f.Config).Frame(t.Context(), id); err != nil || !s.Published() {
		t.Errorf("%v, %v", s, err)
	}
}

// Credentials are sent, are read again when they change, and are in no error.
func TestCredentials(t *testing.T) {
	t.Parallel()
	const secretText = "s3cr3t-of-the-registry"
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secretText+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		set  func(*registry.Config)
		want string
	}{
		"password": {func(c *registry.Config) { c.Username, c.PasswordFile = "oona", file }, "Basic b29uYTpzM2NyM3Qtb2YtdGhlLXJlZ2lzdHJ5"},
		"token":    {func(c *registry.Config) { c.TokenFile = file }, "Bearer " + secretText},
	} {
		t.Run(name, func(t *testing.T) {
			f := registrytest.Start(t, c.want)
			f.Register("raw-value", published(t, frameName))
			if err := open(t, f.Config).Probe(t.Context()); !errors.Is(err, registry.ErrCredentials) {
				t.Errorf("without them: %v", err)
			}
			c.set(&f.Config)
			if err := open(t, f.Config).Probe(t.Context()); err != nil || f.Authorization() != c.want {
				t.Errorf("%v; sent was %s", err, f.Authorization())
			}
			f.Answer(500, "")
			if err := open(t, f.Config).Probe(t.Context()); err == nil || strings.Contains(err.Error(), secretText) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for flag, c := range map[string]registry.Config{
		"--registry-url":           {Username: "oona"},
		"--registry-url#2":         {URLs: []string{"registry:8081"}},
		"--registry-url#3":         {URLs: []string{"http://oona:password@registry:8081"}},
		"--registry-url#4":         {URLs: []string{"http://registry?x=1"}},
		"--registry-password-file": {URLs: []string{"http://registry"}, Username: "oona"},
		"--registry-token-file":    {URLs: []string{"http://registry"}, Username: "oona", PasswordFile: file, TokenFile: file},
		"--registry-token-file#2":  {URLs: []string{"http://registry"}, TokenFile: file + "-missing"},
		"--registry-username":      {URLs: []string{"http://registry"}, Username: "oo:na", PasswordFile: file},
	} {
		var wrong *oona.FieldError
		want, _, _ := strings.Cut(flag, "#")
		if err := c.Validate(); !errors.As(err, &wrong) || wrong.Field != want || strings.Contains(err.Error(), "oona:password") {
			t.Errorf("%s: %v", flag, err)
		}
	}
	good := registry.Config{URLs: []string{"http://registry"}, TokenFile: file}
	if err := good.Validate(); err != nil || len(good.Warnings()) != 1 {
		t.Errorf("%v, %v", err, good.Warnings())
	}
}

// With a CA file, only a registry whose certificate is of that authority is asked.
func TestTLS(t *testing.T) {
	t.Parallel()
	f := registrytest.Start(t, "")
	id := f.Register("raw-value", published(t, frameName))
	secure := httptest.NewTLSServer(f.Handler())
	t.Cleanup(secure.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c := registry.Config{URLs: []string{secure.URL}}
	if _, err := open(t, c).Frame(t.Context(), id); !errors.Is(err, registry.ErrAway) {
		t.Errorf("with the system's authorities: %v", err)
	}
	c.TLS.CAFile = ca
	if _, err := open(t, c).Frame(t.Context(), id); err != nil {
		t.Errorf("with its authority: %v", err)
	}
}
