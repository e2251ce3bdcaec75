package claimcheck_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/claimcheck/claimchecktest"
)

// contents is a store on a faulty server, with objects.
func contents(t *testing.T, f *faulty, objects int) (*claimcheck.Store, []claimcheck.Object) {
	t.Helper()
	server := startEmbedded(t, f.wrap)
	store, err := claimcheck.OpenS3(server.Config(t), bucket, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var all []claimcheck.Object
	for seed := range uint64(objects) {
		content := claimchecktest.Content(seed, 100)
		claim, _, err := store.CheckIn(t.Context(), bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		o, err := store.Stat(t.Context(), claim.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return store, all
}

func count(t *testing.T, list func(func(claimcheck.Object) error) error) (n int) {
	t.Helper()
	if err := list(func(claimcheck.Object) error { n++; return nil }); err != nil {
		t.Error(err)
	}
	return n
}

func deletions(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("delete")
}
func copies(r *http.Request) bool { return r.Header.Get("X-Amz-Copy-Source") != "" }

// Servers that do not delete batches, such as Google Cloud Storage, delete one by one.
func TestDeletionsOneByOne(t *testing.T) {
	t.Parallel()
	f := &faulty{match: deletions, serve: answer(http.StatusNotImplemented)}
	store, all := contents(t, f, 5)
	moved, err := store.SetAside(t.Context(), all, time.Now().Add(time.Hour))
	if err == nil {
		err = store.Discard(t.Context(), moved)
	}
	if err != nil || len(moved) != 5 || f.fired.Load() == 0 {
		t.Errorf("%d were moved, %d requests failed: %v", len(moved), f.fired.Load(), err)
	}
	here := func(take func(claimcheck.Object) error) error { return store.Each(t.Context(), take) }
	aside := func(take func(claimcheck.Object) error) error { return store.Aside(t.Context(), take) }
	if a, b := count(t, here), count(t, aside); a != 0 || b != 0 {
		t.Errorf("%d objects are left, and %d set aside", a, b)
	}
}

// A refusal says which setting is wrong, and what was not moved is where it was.
func TestMoveRefused(t *testing.T) {
	t.Parallel()
	denied := func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		fmt.Fprint(w, `<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>`)
	}
	for what, f := range map[string]*faulty{
		"copies":             {match: copies, serve: answer(http.StatusForbidden)},
		"deletions":          {match: deletions, serve: answer(http.StatusForbidden)},
		"a deletion of them": {match: deletions, serve: denied},
	} {
		store, all := contents(t, f, 3)
		_, err := store.SetAside(t.Context(), all, time.Now().Add(time.Hour))
		wrong, ok := errors.AsType[*oona.FieldError](err)
		if !errors.Is(err, claimcheck.ErrRefused) || !ok || wrong.Field != "--s3-access-key-id" {
			t.Errorf("%s: %v", what, err)
		}
		if n := count(t, func(take func(claimcheck.Object) error) error { return store.Each(t.Context(), take) }); n != 3 {
			t.Errorf("%s: %d objects are left", what, n)
		}
	}
	f := &faulty{match: func(r *http.Request) bool { return r.URL.Query().Has("list-type") }, serve: answer(http.StatusServiceUnavailable)}
	store, _ := contents(t, f, 1)
	if err := store.Each(t.Context(), func(claimcheck.Object) error { return nil }); !errors.Is(err, claimcheck.ErrUnavailable) {
		t.Errorf("a listing that fails: %v", err)
	}
}

// Where an object cannot be copied to itself, it is read and written.
func TestRenewedWithoutCopies(t *testing.T) {
	t.Parallel()
	f := &faulty{match: copies, serve: answer(http.StatusForbidden)}
	dir := t.TempDir()
	server := startEmbeddedIn(t, dir, f.wrap)
	store, err := claimcheck.OpenS3(server.Config(t), bucket, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	claim, _, err := store.CheckIn(t.Context(), bytes.NewReader(claimchecktest.Content(1, 100)))
	if err != nil {
		t.Fatal(err)
	}
	ageIn(filepath.Join(dir, bucket))(t, claim.Key, time.Now().Add(-2*claimcheck.RenewAfter))
	err = store.Confirm(t.Context(), claim)
	if o, lost := store.Stat(t.Context(), claim.SHA256); err != nil || lost != nil || time.Since(o.Modified) > claimcheck.RenewAfter || f.fired.Load() != 1 {
		t.Errorf("it is of %s, %d copies were refused: %v, %v", o.Modified, f.fired.Load(), err, lost)
	}
}
