package claimchecktest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
)

// hashes returns what a listing of the store has, in order.
func hashes(t *testing.T, list func(context.Context, func(claimcheck.Object) error) error) (all [][sha256.Size]byte) {
	t.Helper()
	err := list(t.Context(), func(o claimcheck.Object) error {
		if o.Size != small || time.Since(o.Modified).Abs() > time.Hour {
			t.Errorf("%s has %d bytes and is of %s", o.Key(), o.Size, o.Modified)
		}
		all = append(all, o.SHA256)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	slices.SortFunc(all, func(a, b [sha256.Size]byte) int { return bytes.Compare(a[:], b[:]) })
	return all
}

func hashesOf(claims ...oona.TensorClaim) (all [][sha256.Size]byte) {
	for _, c := range claims {
		all = append(all, c.SHA256)
	}
	slices.SortFunc(all, func(a, b [sha256.Size]byte) int { return bytes.Compare(a[:], b[:]) })
	return all
}

func stat(t *testing.T, store Store, claims ...oona.TensorClaim) (all []claimcheck.Object) {
	t.Helper()
	for _, c := range claims {
		o, err := store.Stat(t.Context(), c.SHA256)
		if err != nil || store.Of(o) != c {
			t.Fatalf("stat %s: %+v, error %v", c.Key, o, err)
		}
		all = append(all, o)
	}
	return all
}

// Each lists the tensors and nothing else. Verify finds what is not what its key says.
func testContents(t *testing.T, place Place) {
	store := place.Open(t, limit)
	if got := hashes(t, store.Each); len(got) != 0 {
		t.Errorf("an empty store has %x", got)
	}
	var claims []oona.TensorClaim
	for seed := range uint64(7) {
		claims = append(claims, checkIn(t, store, Content(seed, small)))
	}
	if err := store.Probe(t.Context(), "ingest-1"); err != nil {
		t.Fatal(err)
	}
	place.Overwrite(t, claimcheck.Prefix+"zz/what-is-this", []byte("not a tensor"))
	if got, want := hashes(t, store.Each), hashesOf(claims...); !slices.Equal(got, want) {
		t.Errorf("the store has %x, want %x", got, want)
	}
	stop := errors.New("stop")
	wantError(t, "a listing that is stopped", store.Each(t.Context(), func(claimcheck.Object) error { return stop }), stop)

	for _, o := range stat(t, store, claims...) {
		if err := store.Verify(t.Context(), o); err != nil {
			t.Error(err)
		}
	}
	place.Overwrite(t, claims[0].Key, Content(99, small))
	wantError(t, "verify other bytes", store.Verify(t.Context(), stat(t, store, claims[0])[0]), claimcheck.ErrMismatch)
	_, err := store.Stat(t.Context(), sha256.Sum256([]byte("absent")))
	wantError(t, "stat", err, claimcheck.ErrNotFound)
}

// What is set aside is missing, can be put back, and can be discarded. What is sent again
// in the meantime is there.
func testAside(t *testing.T, place Place) {
	store := place.Open(t, limit)
	var claims []oona.TensorClaim
	for seed := range uint64(4) {
		claims = append(claims, checkIn(t, store, Content(seed, small)))
	}
	kept, back, gone, again := claims[0], claims[1], claims[2], claims[3]
	objects := stat(t, store, back, gone, again)
	absent := claimcheck.Object{SHA256: sha256.Sum256([]byte("absent"))}
	future := time.Now().Add(time.Hour)
	moved, err := store.SetAside(t.Context(), append(objects, absent), future)
	if err != nil || len(moved) != 3 {
		t.Fatalf("%d were set aside: %v", len(moved), err)
	}
	if got, want := hashes(t, store.Each), hashesOf(kept); !slices.Equal(got, want) {
		t.Errorf("the store has %x, want %x", got, want)
	}
	if got, want := hashes(t, store.Aside), hashesOf(back, gone, again); !slices.Equal(got, want) {
		t.Errorf("set aside are %x, want %x", got, want)
	}
	wantError(t, "confirm what is set aside", store.Confirm(t.Context(), back), claimcheck.ErrNotFound)
	if sent := checkIn(t, store, Content(3, small)); sent != again {
		t.Errorf("sent again: %+v, was %+v", sent, again)
	}
	// It must not be replaced by what was set aside.
	place.Overwrite(t, claimcheck.AsidePrefix+hex.EncodeToString(again.SHA256[:]), Content(99, small))
	if err := store.PutBack(t.Context(), []claimcheck.Object{objects[0], objects[2], absent}); err != nil {
		t.Error(err)
	}
	if err := store.Discard(t.Context(), []claimcheck.Object{objects[1], absent}); err != nil {
		t.Error(err)
	}
	if got := hashes(t, store.Aside); len(got) != 0 {
		t.Errorf("set aside are %x", got)
	}
	place.holds(t, kept.Key, back.Key, again.Key)
	for seed, claim := range map[uint64]oona.TensorClaim{0: kept, 1: back, 3: again} {
		if got, err := store.Bytes(t.Context(), claim); err != nil || !bytes.Equal(got, Content(seed, small)) {
			t.Errorf("seed %d: %d bytes, error %v", seed, len(got), err)
		}
	}
	// What is newer than the time stays where it is.
	moved, err = store.SetAside(t.Context(), stat(t, store, kept), time.Now().Add(-time.Hour))
	if err != nil || len(moved) != 0 {
		t.Errorf("%d were set aside that are new: %v", len(moved), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	moved, err = store.SetAside(ctx, stat(t, store, kept), future)
	wantError(t, "set aside without a context", err, context.Canceled)
	if len(moved) != 0 {
		t.Errorf("%d were set aside", len(moved))
	}
	place.holds(t, kept.Key, back.Key, again.Key)
}

// A tensor that is sent again is as new as if it had been stored then.
func testRenewed(t *testing.T, place Place) {
	for _, n := range []int{small, large} {
		content := Content(1, n)
		claim := checkIn(t, place.Open(t, limit), content)
		old := time.Now().Add(-2 * claimcheck.RenewAfter).Truncate(time.Second)
		for range 2 { // the second store has not written the object, or read it
			store := place.Open(t, limit)
			place.Age(t, claim.Key, old)
			if o := stat(t, store, claim)[0]; !o.Modified.Equal(old) {
				t.Fatalf("the object is of %s, want %s", o.Modified, old)
			}
			for range 2 {
				again, fresh, err := store.CheckIn(t.Context(), stream(content))
				if err != nil || fresh || again != claim {
					t.Errorf("sent again: %+v, fresh %v, error %v", again, fresh, err)
				}
				if o := stat(t, store, claim)[0]; time.Since(o.Modified) > claimcheck.RenewAfter {
					t.Errorf("%d bytes that were sent again are of %s", n, o.Modified)
				}
			}
			if got, err := store.Bytes(t.Context(), claim); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes come out as %d, error %v", n, len(got), err)
			}
		}
		// Not each time: what is young is not written.
		store := place.Open(t, limit)
		young := time.Now().Add(-claimcheck.RenewAfter / 2).Truncate(time.Second)
		place.Age(t, claim.Key, young)
		if _, _, err := store.CheckIn(t.Context(), stream(content)); err != nil {
			t.Error(err)
		}
		if o := stat(t, store, claim)[0]; !o.Modified.Equal(young) {
			t.Errorf("a young object was written again: it is of %s, was of %s", o.Modified, young)
		}
	}
}

// A tensor whose claim is sent is renewed, too.
func testConfirmed(t *testing.T, place Place) {
	for _, n := range []int{small, large} {
		store, content := place.Open(t, limit), Content(1, n)
		claim := checkIn(t, store, content)
		old := time.Now().Add(-2 * claimcheck.RenewAfter).Truncate(time.Second)
		place.Age(t, claim.Key, old)
		if o := stat(t, store, claim)[0]; !o.Modified.Equal(old) {
			t.Fatalf("the object is of %s, want %s", o.Modified, old)
		}
		for range 2 {
			if err := store.Confirm(t.Context(), claim); err != nil {
				t.Error(err)
			}
			if o := stat(t, store, claim)[0]; time.Since(o.Modified) > claimcheck.RenewAfter {
				t.Errorf("%d bytes that were confirmed are of %s", n, o.Modified)
			}
		}
		if got, err := store.Bytes(t.Context(), claim); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes come out as %d, error %v", n, len(got), err)
		}
	}
}
