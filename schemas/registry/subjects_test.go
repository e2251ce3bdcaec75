package registry_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/morphogenetic/oona/schemas/registry"
	"github.com/morphogenetic/oona/schemas/registry/registrytest"
)

const rollupName = "kasmina.telemetry.LayerHealth"

func examine(t *testing.T, r *registry.Registry, subject, record string) *registry.Standing {
	t.Helper()
	s, err := r.Examine(t.Context(), subject, record)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each version is registered once, in a subject that keeps full transitive compatibility.
func TestRegister(t *testing.T) {
	t.Parallel()
	f := registrytest.Start(t, "")
	r := open(t, f.Config)
	subject := registry.Subject("layer.health")
	s := examine(t, r, subject, rollupName)
	if s.Complete() || s.Conflict != nil || len(s.Versions) != 2 {
		t.Fatalf("a new subject stands as %+v", s)
	}
	if err := r.Register(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	after := examine(t, r, subject, rollupName)
	if !after.Complete() || after.Others != 0 || after.Level != "FULL_TRANSITIVE" || after.Versions[0].ID == after.Versions[1].ID {
		t.Errorf("afterwards it stands as %+v", after)
	}
	requests := f.Requests()
	if err := r.Register(t.Context(), after); err != nil || f.Requests() != requests {
		t.Errorf("registered again: %v, with %d requests", err, f.Requests()-requests)
	}
}

// A schema that is there in another form is not registered again.
func TestRegisteredInAnotherForm(t *testing.T) {
	t.Parallel()
	f := registrytest.Start(t, "")
	id := f.Register("raw-value", strings.Join(strings.Fields(published(t, frameName)), " "))
	s := examine(t, open(t, f.Config), "raw-value", frameName)
	if !s.Complete() || s.Versions[0].ID != id.Number || s.Others != 0 {
		t.Errorf("it stands as %+v", s)
	}
}

// Nothing is registered beside a version that is not compatible both ways, whatever the
// registry itself would allow.
func TestIncompatible(t *testing.T) {
	t.Parallel()
	text := published(t, frameName)
	for name, existing := range map[string]string{
		"cannot read ours": strings.Replace(text, `"fields": [`, `"fields": [{"name": "needed", "type": "string"},`, 1),
		"is not readable":  strings.Replace(text, `{"name": "run_id", "type": "string",`, `{"name": "run_id", "type": ["string", "null"],`, 1),
		"something else":   `{"type":"record","name":"Order","fields":[]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := registrytest.Start(t, "")
			r := open(t, f.Config)
			if existing == text {
				t.Fatal("nothing was replaced")
			}
			f.Register("raw-value", existing)
			s := examine(t, r, "raw-value", frameName)
			if s.Others != 1 || !errors.Is(s.Conflict, registry.ErrIncompatible) {
				t.Errorf("it stands as %+v", s)
			}
			if err := r.Register(t.Context(), s); !errors.Is(err, registry.ErrIncompatible) {
				t.Errorf("registered: %v", err)
			}
			if s := examine(t, r, "raw-value", frameName); s.Complete() || s.Others != 1 {
				t.Errorf("afterwards it stands as %+v", s)
			}
		})
	}
}

// What a registry refuses says why.
func TestRegisterIsRefused(t *testing.T) {
	t.Parallel()
	f := registrytest.Start(t, "")
	r := open(t, f.Config)
	s := examine(t, r, "raw-value", frameName)
	for status, want := range map[int]error{
		http.StatusConflict: registry.ErrIncompatible, http.StatusForbidden: registry.ErrCredentials, http.StatusServiceUnavailable: registry.ErrAway,
	} {
		f.Answer(status, `{"error_code":1,"message":"no"}`)
		if err := r.Register(t.Context(), s); !errors.Is(err, want) {
			t.Errorf("%d: %v", status, err)
		}
	}
	if s.Complete() {
		t.Error("it counts as registered")
	}
}

// A new subject gets its level even if the call that makes it is cut off: the next one finds
// a subject that is not new.
func TestRegisterIsCutOff(t *testing.T) {
	t.Parallel()
	for name, without := range map[string]bool{"levels of new subjects": false, "levels of subjects that exist": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := registrytest.Start(t, "")
			r := open(t, f.Config)
			subject := registry.Subject("layer.health")
			s := examine(t, r, subject, rollupName)
			registered := 0
			f.AnswerBy(func(w http.ResponseWriter, q *http.Request) {
				switch {
				case q.Method == http.MethodPost && registered == 1 && !without:
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				case q.Method == http.MethodPost:
					registered++
				case q.Method == http.MethodPut && registered == 0 && without: // as Apicurio
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusNotFound)
					_, _ = w.Write([]byte(`{"error_code":40401,"message":"no such subject"}`))
					return
				}
				f.Handler().ServeHTTP(w, q)
			})
			if err := r.Register(t.Context(), s); errors.Is(err, registry.ErrAway) == without {
				t.Fatalf("%v", err)
			}
			f.AnswerBy(nil)
			s = examine(t, r, subject, rollupName)
			if err := r.Register(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if s = examine(t, r, subject, rollupName); !s.Complete() || s.Level != "FULL_TRANSITIVE" {
				t.Errorf("it stands as %+v", s)
			}
		})
	}
}
