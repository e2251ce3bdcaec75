package claimcheck

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/morphogenetic/oona"
)

// RenewAfter is the minimum age of an object that is renewed. When a tensor or its claim is sent
// again, and the object is older than that, the object gets the current time. So the age of an
// object shows when the tensor was last sent, with an error of at most RenewAfter. And no object
// is renewed more than once in that time.
const RenewAfter = time.Hour

// Object is a tensor in the store.
type Object struct {
	SHA256   [sha256.Size]byte
	Size     int64
	Modified time.Time // when the object was stored or last renewed
}

// Key returns the key of the object.
func (o Object) Key() string { return Key(o.SHA256) }

// Of returns the claim of an object.
func (s *Store) Of(o Object) oona.TensorClaim { return s.claim(o.Size, o.SHA256) }

// ParseKey returns the SHA-256 in a key. It returns false if the key was not made by [Key].
func ParseKey(key string) (digest [sha256.Size]byte, ok bool) {
	const fan = len("ab/")
	if len(key) != len(Prefix)+fan+hex.EncodedLen(len(digest)) {
		return digest, false
	}
	if _, err := hex.Decode(digest[:], []byte(key[len(Prefix)+fan:])); err != nil {
		return digest, false
	}
	return digest, Key(digest) == key
}

// Each calls take with each tensor in the store. It skips objects whose keys are not keys of
// tensors. If take returns an error, Each stops and returns it.
func (s *Store) Each(ctx context.Context, take func(Object) error) error {
	return s.objects.each(ctx, Prefix, func(key string, i info) error {
		digest, ok := ParseKey(key)
		if !ok {
			return nil
		}
		return take(Object{digest, i.size, i.modified})
	})
}

// Stat returns the object with the given SHA-256. If there is none, the error wraps ErrNotFound.
func (s *Store) Stat(ctx context.Context, digest [sha256.Size]byte) (Object, error) {
	i, err := s.objects.stat(ctx, Key(digest))
	if err != nil {
		return Object{}, fmt.Errorf("look for %s: %w", Key(digest), err)
	}
	return Object{digest, i.size, i.modified}, nil
}

// Verify reads an object and checks its content. If the SHA-256 of the content is not the one in the
// key, the error wraps ErrMismatch.
func (s *Store) Verify(ctx context.Context, o Object) error {
	content, err := s.CheckOut(ctx, s.Of(o))
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, &bounded{ctx: ctx, content: content, limit: o.Size})
	if closed := content.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("verify %s: %w", o.Key(), err)
	}
	return nil
}

// AsidePrefix is the prefix of the keys of tensors that were set aside. The rest of such a key is the
// SHA-256.
const AsidePrefix = "oona-gc/"

func asideKey(digest [sha256.Size]byte) string { return AsidePrefix + hex.EncodeToString(digest[:]) }

// SetAside moves objects to other keys, so that readers no longer find them. PutBack moves them
// back. SetAside does not move objects that were stored or renewed after the given time. It returns
// the objects that it has moved, even if it also returns an error.
func (s *Store) SetAside(ctx context.Context, all []Object, before time.Time) ([]Object, error) {
	return s.relocate(ctx, all, before, true, func(digest [sha256.Size]byte) relocation {
		return relocation{Key(digest), asideKey(digest)}
	})
}

// PutBack moves objects back to the keys that they had before SetAside. If an object was stored
// under such a key in the meantime, PutBack keeps that object.
func (s *Store) PutBack(ctx context.Context, all []Object) error {
	_, err := s.relocate(ctx, all, time.Time{}, false, func(digest [sha256.Size]byte) relocation {
		return relocation{asideKey(digest), Key(digest)}
	})
	return err
}

func (s *Store) relocate(ctx context.Context, all []Object, before time.Time, replace bool, of func([sha256.Size]byte) relocation) ([]Object, error) {
	moves, objects := make([]relocation, len(all)), make(map[relocation]Object, len(all))
	for i, o := range all {
		moves[i] = of(o.SHA256)
		objects[moves[i]] = o
	}
	moved, err := s.objects.move(ctx, moves, before, replace)
	var done []Object
	for _, m := range moved {
		done = append(done, objects[m])
	}
	if err != nil {
		return done, fmt.Errorf("move tensors in bucket %s: %w", s.bucket, err)
	}
	return done, nil
}

// Aside calls take with each object that was set aside. Its field Modified is the time at which it
// was set aside.
func (s *Store) Aside(ctx context.Context, take func(Object) error) error {
	return s.objects.each(ctx, AsidePrefix, func(key string, i info) error {
		var digest [sha256.Size]byte
		name := key[len(AsidePrefix):]
		if n, err := hex.Decode(digest[:min(len(digest), len(name)/2)], []byte(name)); err != nil || n != len(digest) {
			return nil
		}
		return take(Object{digest, i.size, i.modified})
	})
}

// Discard deletes objects that were set aside.
func (s *Store) Discard(ctx context.Context, all []Object) error {
	keys := make([]string, len(all))
	for i, o := range all {
		keys[i] = asideKey(o.SHA256)
	}
	if err := s.objects.remove(ctx, keys); err != nil {
		return fmt.Errorf("delete tensors in bucket %s: %w", s.bucket, err)
	}
	return nil
}
