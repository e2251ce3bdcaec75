// Package claimchecktest is the conformance suite of tensor stores. The tests of a
// store call [Run]. [S3] prepares a bucket of an S3 server for it.
package claimchecktest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
)

// Store is a store under test. Its methods are documented at [claimcheck.Store].
type Store interface {
	Check(claim oona.TensorClaim) error
	CheckIn(ctx context.Context, content io.Reader) (claim oona.TensorClaim, fresh bool, err error)
	Confirm(ctx context.Context, claim oona.TensorClaim) error
	CheckOut(ctx context.Context, claim oona.TensorClaim) (io.ReadCloser, error)
	Bytes(ctx context.Context, claim oona.TensorClaim) ([]byte, error)
	Probe(ctx context.Context, name string) error

	Of(o claimcheck.Object) oona.TensorClaim
	Each(ctx context.Context, take func(claimcheck.Object) error) error
	Stat(ctx context.Context, digest [sha256.Size]byte) (claimcheck.Object, error)
	Verify(ctx context.Context, o claimcheck.Object) error
	SetAside(ctx context.Context, all []claimcheck.Object, before time.Time) ([]claimcheck.Object, error)
	PutBack(ctx context.Context, all []claimcheck.Object) error
	Aside(ctx context.Context, take func(claimcheck.Object) error) error
	Discard(ctx context.Context, all []claimcheck.Object) error
}

// Place is an empty place for the tensors of a test.
type Place struct {
	Open func(t *testing.T, limit int64) Store // limit is the greatest size of a tensor
	// Overwrite replaces an object without the store.
	Overwrite func(t *testing.T, key string, content []byte)
	// List returns the keys of all objects except those of probes, and the remains
	// of check-ins that were not completed.
	List func(t *testing.T) (keys, unfinished []string)
	// Age gives an object a time of modification, without the store.
	Age func(t *testing.T, key string, modified time.Time)
}

const (
	limit = 20 << 20
	small = 20_000
	large = 9<<20 + 7 // more than one part
)

// Run runs the suite, each test in its own Place.
func Run(t *testing.T, place func(t *testing.T) Place) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Place)
	}{
		{"RoundTrip", testRoundTrip},
		{"OnceInParallel", testOnceInParallel},
		{"TooLarge", testTooLarge},
		{"ContentThatFails", testContentThatFails},
		{"Cancelled", testCancelled},
		{"NotFound", testNotFound},
		{"Foreign", testForeign},
		{"WrongBytes", testWrongBytes},
		{"WrongSize", testWrongSize},
		{"Damaged", testDamaged},
		{"Contents", testContents},
		{"Aside", testAside},
		{"Renewed", testRenewed},
		{"Confirmed", testConfirmed},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, place(t)) })
	}
}

// Content returns n bytes that depend on the seed.
func Content(seed uint64, n int) []byte {
	content := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(content) // never fails
	return content
}

// stream returns a reader that has only the method Read.
func stream(content []byte) io.Reader { return iotest.HalfReader(bytes.NewReader(content)) }

func checkIn(t *testing.T, store Store, content []byte) oona.TensorClaim {
	t.Helper()
	claim, fresh, err := store.CheckIn(t.Context(), stream(content))
	if err != nil || !fresh {
		t.Fatalf("check in %d bytes: fresh is %v, error %v", len(content), fresh, err)
	}
	return claim
}

// holds checks that the place has exactly the keys want, and nothing unfinished.
func (p Place) holds(t *testing.T, want ...string) {
	t.Helper()
	keys, unfinished := p.List(t)
	slices.Sort(keys)
	slices.Sort(want)
	if !slices.Equal(keys, want) || len(unfinished) != 0 {
		t.Errorf("the store holds %q and %q unfinished, want %q and nothing", keys, unfinished, want)
	}
}

func wantError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error is %v, want one that is %v", what, got, want)
	}
}

func testRoundTrip(t *testing.T, place Place) {
	store := place.Open(t, limit)
	for range 2 { // it overwrites what it has written
		if err := store.Probe(t.Context(), "ingest-1"); err != nil {
			t.Fatal(err)
		}
	}
	var keys []string
	for seed, n := range []int{0, 1, small, 1<<20 - 1, 1 << 20, 1<<20 + 1, 8 << 20, 8<<20 + 1, large, limit} {
		content := Content(uint64(seed), n)
		claim := checkIn(t, store, content)
		digest := sha256.Sum256(content)
		want := oona.TensorClaim{Bucket: claim.Bucket, Key: claimcheck.Key(digest), Size: int64(n), SHA256: digest}
		if claim != want || claim.Bucket == "" {
			t.Errorf("claim is %+v, want %+v", claim, want)
		}
		keys = append(keys, claim.Key)
		again, fresh, err := store.CheckIn(t.Context(), stream(content))
		if err != nil || fresh || again != claim {
			t.Errorf("%d bytes again: claim %+v, fresh %v, error %v", n, again, fresh, err)
		}
		if err := store.Confirm(t.Context(), claim); err != nil {
			t.Error(err)
		}
		streamed, err := store.CheckOut(t.Context(), claim)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(streamed)
		if err := errors.Join(err, streamed.Close()); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes come out as %d, error %v", n, len(got), err)
		}
		if got, err := store.Bytes(t.Context(), claim); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes come out as %d, error %v", n, len(got), err)
		}
	}
	place.holds(t, keys...)
}

func testOnceInParallel(t *testing.T, place Place) {
	store := place.Open(t, limit)
	var keys []string
	for seed, n := range []int{small, large} {
		content := Content(uint64(seed), n)
		var group sync.WaitGroup
		freshness := make([]bool, 12)
		for i := range freshness {
			group.Go(func() {
				_, fresh, err := store.CheckIn(t.Context(), stream(content))
				if err != nil {
					t.Error(err)
				}
				freshness[i] = fresh
			})
		}
		group.Wait()
		winners := 0
		for _, fresh := range freshness {
			if fresh {
				winners++
			}
		}
		if winners != 1 {
			t.Errorf("of %d check-ins of the same %d bytes, %d were fresh, want 1", len(freshness), n, winners)
		}
		keys = append(keys, claimcheck.Key(sha256.Sum256(content)))
	}
	place.holds(t, keys...)
}

func testTooLarge(t *testing.T, place Place) {
	for _, most := range []int64{small, large} {
		store := place.Open(t, most)
		_, _, err := store.CheckIn(t.Context(), stream(Content(1, int(most)+1)))
		wantError(t, "one byte too many", err, claimcheck.ErrTooLarge)
	}
	place.holds(t)
}

// Content that fails while it is read, or that is not what its sender declared,
// leaves nothing behind.
func testContentThatFails(t *testing.T, place Place) {
	store := place.Open(t, limit)
	for _, n := range []int{small, large} {
		content := Content(1, n)
		short := io.MultiReader(stream(content), iotest.ErrReader(io.ErrUnexpectedEOF))
		_, _, err := store.CheckIn(t.Context(), short)
		wantError(t, "a body that ends early", err, io.ErrUnexpectedEOF)

		other := sha256.Sum256(Content(2, n))
		_, _, err = store.CheckIn(t.Context(), claimcheck.Verify(stream(content), other))
		wantError(t, "another content than declared", err, claimcheck.ErrMismatch)
		place.holds(t)

		_, fresh, err := store.CheckIn(t.Context(), claimcheck.Verify(stream(content), sha256.Sum256(content)))
		if err != nil || !fresh {
			t.Errorf("the content as declared: fresh is %v, error %v", fresh, err)
		}
		place = Place{Open: place.Open, Overwrite: place.Overwrite, List: without(place.List, claimcheck.Key(sha256.Sum256(content))), Age: place.Age}
	}
}

// without returns list without one key.
func without(list func(*testing.T) (keys, unfinished []string), key string) func(*testing.T) ([]string, []string) {
	return func(t *testing.T) ([]string, []string) {
		keys, unfinished := list(t)
		return slices.DeleteFunc(keys, func(k string) bool { return k == key }), unfinished
	}
}

func testCancelled(t *testing.T, place Place) {
	store := place.Open(t, limit)
	for _, n := range []int{small, large} {
		ctx, cancel := context.WithCancel(t.Context())
		content := io.MultiReader(stream(Content(1, n)), cancelling(cancel), stream(Content(2, n)))
		_, _, err := store.CheckIn(ctx, content)
		wantError(t, "cancelled while content is read", err, context.Canceled)

		_, _, err = store.CheckIn(ctx, stream(Content(3, n)))
		wantError(t, "cancelled before", err, context.Canceled)
	}
	place.holds(t)
}

// cancelling is an empty reader that cancels a context when it is read.
type cancelling context.CancelFunc

func (c cancelling) Read([]byte) (int, error) {
	c()
	return 0, io.EOF
}

func claimOf(bucket string, content []byte) oona.TensorClaim {
	digest := sha256.Sum256(content)
	return oona.TensorClaim{Bucket: bucket, Key: claimcheck.Key(digest), Size: int64(len(content)), SHA256: digest}
}

func testNotFound(t *testing.T, place Place) {
	store := place.Open(t, limit)
	bucket := checkIn(t, store, Content(1, small)).Bucket
	absent := claimOf(bucket, Content(2, small))
	wantError(t, "confirm", store.Confirm(t.Context(), absent), claimcheck.ErrNotFound)
	_, err := store.CheckOut(t.Context(), absent)
	wantError(t, "check out", err, claimcheck.ErrNotFound)
	data, err := store.Bytes(t.Context(), absent)
	wantError(t, "bytes", err, claimcheck.ErrNotFound)
	if data != nil {
		t.Errorf("a tensor that is not in the store has %d bytes", len(data))
	}
}

// The store refuses foreign claims before it looks for their objects.
func testForeign(t *testing.T, place Place) {
	store := place.Open(t, limit)
	good := checkIn(t, store, Content(1, small))
	place.Overwrite(t, "elsewhere/secret", Content(1, small))
	for name, change := range map[string]func(*oona.TensorClaim){
		"bucket":    func(c *oona.TensorClaim) { c.Bucket += "x" },
		"no bucket": func(c *oona.TensorClaim) { c.Bucket = "" },
		"key":       func(c *oona.TensorClaim) { c.Key = "elsewhere/secret" },
		"key up":    func(c *oona.TensorClaim) { c.Key = "../" + c.Key },
		"key root":  func(c *oona.TensorClaim) { c.Key = "/etc/passwd" },
		"a URL":     func(c *oona.TensorClaim) { c.Key = "http://127.0.0.1/" + c.Key },
		"digest":    func(c *oona.TensorClaim) { c.SHA256[31]++ },
		"size":      func(c *oona.TensorClaim) { c.Size = -1 },
	} {
		claim := good
		change(&claim)
		wantError(t, name, store.Check(claim), claimcheck.ErrForeign)
		wantError(t, name, store.Confirm(t.Context(), claim), claimcheck.ErrForeign)
		_, err := store.CheckOut(t.Context(), claim)
		wantError(t, name, err, claimcheck.ErrForeign)
		if field := new(oona.FieldError); !errors.As(err, &field) {
			t.Errorf("%s: %v names no field", name, err)
		}
	}
	large := good
	large.Size = limit + 1
	wantError(t, "size above the limit", store.Check(large), claimcheck.ErrTooLarge)
}

// For content that is not what was claimed, the last Read returns an error, and Bytes
// returns nothing.
func testWrongBytes(t *testing.T, place Place) {
	store := place.Open(t, limit)
	for _, n := range []int{small, large} {
		content := Content(1, n)
		claim := checkIn(t, store, content)
		content[n/2] ^= 1
		place.Overwrite(t, claim.Key, content)
		streamed, err := store.CheckOut(t.Context(), claim)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(streamed)
		wantError(t, "one bit is another", err, claimcheck.ErrMismatch)
		if !bytes.Equal(got, content) {
			t.Error("the fault did not happen: the object was not overwritten")
		}
		streamed.Close()
		data, err := store.Bytes(t.Context(), claim)
		wantError(t, "one bit is another", err, claimcheck.ErrMismatch)
		if data != nil {
			t.Error("Bytes returned bytes that were not verified")
		}
	}
}

// Confirm, too, finds content of the wrong size, and the next check-in replaces it.
func testWrongSize(t *testing.T, place Place) {
	store := place.Open(t, limit)
	for _, n := range []int{small, large} {
		content := Content(1, n)
		claim := checkIn(t, store, content)
		for _, wrong := range [][]byte{content[:n-1], append(Content(1, n), 0), nil} {
			place.Overwrite(t, claim.Key, wrong)
			wantError(t, "confirm", store.Confirm(t.Context(), claim), claimcheck.ErrMismatch)
			_, err := store.CheckOut(t.Context(), claim)
			wantError(t, "check out", err, claimcheck.ErrMismatch)
			_, err = store.Bytes(t.Context(), claim)
			wantError(t, "bytes", err, claimcheck.ErrMismatch)
			if again := checkIn(t, store, content); again != claim {
				t.Errorf("claim is %+v, was %+v", again, claim)
			}
			if got, err := store.Bytes(t.Context(), claim); err != nil || !bytes.Equal(got, content) {
				t.Errorf("after it was checked in again, %d bytes come out, error %v", len(got), err)
			}
		}
	}
}

// Damaged content of the right size is replaced by the next check-in, at least in a
// process that has not seen the key before.
func testDamaged(t *testing.T, place Place) {
	content := Content(1, small)
	claim := checkIn(t, place.Open(t, limit), content)
	damaged := Content(2, small)
	place.Overwrite(t, claim.Key, damaged)
	store := place.Open(t, limit)
	_, err := store.Bytes(t.Context(), claim)
	wantError(t, "other bytes", err, claimcheck.ErrMismatch) // the fault has happened
	if again := checkIn(t, store, content); again != claim {
		t.Errorf("claim is %+v, was %+v", again, claim)
	}
	if got, err := store.Bytes(t.Context(), claim); err != nil || !bytes.Equal(got, content) {
		t.Errorf("after it was checked in again, %d bytes come out, error %v", len(got), err)
	}
	place.holds(t, claim.Key)
}
