package claimcheck

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/size"
)

// Prefix is the prefix of the keys of all tensors.
const Prefix = "tensors/sha256/"

// Key returns the key of the content with the given SHA-256, for example
// tensors/sha256/ab/abcd...
func Key(digest [sha256.Size]byte) string {
	name := hex.EncodeToString(digest[:])
	return Prefix + name[:2] + "/" + name
}

// Store keeps tensors in one bucket. It is safe for concurrent use. [Open],
// [OpenDirectory] and [OpenS3] make one.
type Store struct {
	bucket  string
	limit   int64 // greatest size of a tensor in bytes
	objects objects
}

// objects stores content under keys.
type objects interface {
	// put stores the content durably under the key, and replaces a damaged object. If
	// the store has the content already, put returns false, and renews the object if it
	// is older than RenewAfter.
	put(ctx context.Context, key string, content *Spooled) (fresh bool, err error)
	open(ctx context.Context, key string) (io.ReadCloser, info, error)
	stat(ctx context.Context, key string) (info, error)
	// renew gives an object the current time.
	renew(ctx context.Context, key string, limit int64) error
	// each calls take with each object whose key begins with the prefix.
	each(ctx context.Context, prefix string, take func(key string, i info) error) error
	// move moves objects. It skips an object that is missing or was renewed after the
	// given time. The time of a moved object is that of the move. If an object with the
	// new key exists, it is replaced if replace is set; otherwise it is kept, and the
	// object with the old key is deleted. move returns the moves that were made, even if
	// it also returns an error.
	move(ctx context.Context, moves []relocation, before time.Time, replace bool) (moved []relocation, err error)
	// remove deletes objects. They may be missing.
	remove(ctx context.Context, keys []string) error
	// probe writes and reads the content under the key. It may leave the object.
	probe(ctx context.Context, key string, content *Spooled) error
}

// info is what a store knows about an object without reading it.
type info struct {
	size     int64
	modified time.Time // when it was written or renewed; zero if the store does not say
}

// old reports whether the object has to be renewed.
func (i info) old() bool { return !i.modified.IsZero() && time.Since(i.modified) > RenewAfter }

// relocation is a move of an object from one key to another.
type relocation struct{ from, to string }

// Claim returns the claim of content. It does not ask whether the store has it.
func (s *Store) Claim(content []byte) oona.TensorClaim {
	return s.claim(int64(len(content)), sha256.Sum256(content))
}

func (s *Store) claim(size int64, digest [sha256.Size]byte) oona.TensorClaim {
	return oona.TensorClaim{Bucket: s.bucket, Key: Key(digest), Size: size, SHA256: digest}
}

// Check returns an error unless this store could have made the claim. The error
// wraps an [oona.FieldError], and ErrTooLarge or ErrForeign. Check sends no
// request to the store.
func (s *Store) Check(claim oona.TensorClaim) error {
	switch {
	case claim.Bucket != s.bucket:
		return foreign("bucket", "is %.100q; tensors are in %s", claim.Bucket, s.bucket)
	case claim.Key != Key(claim.SHA256):
		return foreign("key", "is %.100q; the key of the claim's sha256 is %s", claim.Key, Key(claim.SHA256))
	case claim.Size < 0:
		return foreign("size", "is %d; sizes are 0 or more", claim.Size)
	}
	return s.CheckSize(claim.Size)
}

// CheckSize returns an error if a tensor of the given size in bytes is too large
// for the store. The error wraps an [oona.FieldError] and ErrTooLarge.
func (s *Store) CheckSize(bytes int64) error {
	if bytes > s.limit {
		return fmt.Errorf("%w: %w", &oona.FieldError{Field: "size", Reason: fmt.Sprintf("is %d bytes, and the limit is %s", bytes, size.Text(s.limit))}, ErrTooLarge)
	}
	return nil
}

func foreign(field, format string, args ...any) error {
	return fmt.Errorf("%w: %w", &oona.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}, ErrForeign)
}

// CheckIn reads content to its end and stores it. It returns fresh if the store
// did not have it already. If reading content fails, for example with
// [ErrMismatch] of [Verify], nothing is stored.
func (s *Store) CheckIn(ctx context.Context, content io.Reader) (claim oona.TensorClaim, fresh bool, err error) {
	spooled, err := s.Spool(ctx, content)
	if err != nil {
		return claim, false, err
	}
	defer func() { err = errors.Join(err, spooled.Close()) }()
	return s.Keep(ctx, spooled)
}

// Spool is the first half of [Store.CheckIn]: it reads content to its end, and
// sends no request to the store. The caller closes the result.
func (s *Store) Spool(ctx context.Context, content io.Reader) (*Spooled, error) {
	spooled, err := spool(ctx, content, s.limit)
	if err != nil {
		return nil, fmt.Errorf("check a tensor in: %w", err)
	}
	return spooled, nil
}

// Keep is the second half of [Store.CheckIn]: it stores content, and returns once
// it is durable.
func (s *Store) Keep(ctx context.Context, content *Spooled) (claim oona.TensorClaim, fresh bool, err error) {
	claim = s.claim(content.size, content.digest)
	if fresh, err = s.objects.put(ctx, claim.Key, content); err != nil {
		return oona.TensorClaim{}, false, fmt.Errorf("check in a tensor of %d bytes: %w", content.size, err)
	}
	return claim, fresh, nil
}

// Confirm asks the store whether it has the tensor of the claim, with the right
// size. If not, the error wraps ErrNotFound or ErrMismatch. If the tensor is older
// than RenewAfter, Confirm renews it, as if it had been sent again. Confirm also
// returns the errors of [Store.Check].
func (s *Store) Confirm(ctx context.Context, claim oona.TensorClaim) error {
	if err := s.Check(claim); err != nil {
		return err
	}
	object, err := s.objects.stat(ctx, claim.Key)
	if err != nil {
		return fmt.Errorf("look for %s: %w", claim.Key, err)
	}
	if err := sameSize(claim, object.size); err != nil || !object.old() {
		return err
	}
	if err := s.objects.renew(ctx, claim.Key, s.limit); err != nil {
		return fmt.Errorf("renew %s: %w", claim.Key, err)
	}
	return nil
}

// CheckOut returns a reader of the claim's content. If the content is not what
// was claimed, the last Read returns ErrMismatch instead of io.EOF; before that,
// the bytes are not verified. [Store.Bytes] returns only verified content.
func (s *Store) CheckOut(ctx context.Context, claim oona.TensorClaim) (io.ReadCloser, error) {
	if err := s.Check(claim); err != nil {
		return nil, err
	}
	content, object, err := s.objects.open(ctx, claim.Key)
	if err != nil {
		return nil, fmt.Errorf("check %s out: %w", claim.Key, err)
	}
	if err := sameSize(claim, object.size); err != nil {
		return nil, errors.Join(err, content.Close())
	}
	// One byte more than claimed changes the digest, so it is enough to read one.
	return verified{Verify(io.LimitReader(content, claim.Size+1), claim.SHA256), content}, nil
}

type verified struct {
	io.Reader
	io.Closer
}

// Bytes returns the claim's content once all of it is verified.
func (s *Store) Bytes(ctx context.Context, claim oona.TensorClaim) (_ []byte, err error) {
	content, err := s.CheckOut(ctx, claim)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	data := make([]byte, claim.Size)
	if _, err := io.ReadFull(content, data); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: it ends before its %d bytes", ErrMismatch, claim.Size)
		}
		return nil, fmt.Errorf("check %s out: %w", claim.Key, err)
	}
	if _, err := content.Read(make([]byte, 1)); err != io.EOF {
		return nil, fmt.Errorf("check %s out: %w", claim.Key, err)
	}
	return data, nil
}

// ProbePrefix is the prefix of the keys that Probe writes.
const ProbePrefix = "oona-probe/"

// Probe finds out whether tensors can be stored: it spools and writes a small
// object, reads it, and asks for an object that does not exist. In S3 it leaves
// the object, whose key is ProbePrefix and the name, and overwrites it each time.
// An error that wraps ErrRefused or ErrSpool recurs until an operator acts.
func (s *Store) Probe(ctx context.Context, name string) (err error) {
	if err := probeSpool(); err != nil {
		return err
	}
	content, err := spool(ctx, strings.NewReader("Oona's ingest writes this to find out whether it can store tensors here.\n"), s.limit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	if err := s.objects.probe(ctx, ProbePrefix+name, content); err != nil {
		return fmt.Errorf("probe bucket %s: %w", s.bucket, err)
	}
	return nil
}

// holds reports whether the object under the key is the content, and whether it has to be
// renewed. It reads all of the object.
func holds(ctx context.Context, in objects, key string, content *Spooled) (there, old bool, err error) {
	stored, object, err := in.open(ctx, key)
	if err != nil {
		return false, false, err
	}
	defer func() { err = errors.Join(err, stored.Close()) }()
	if object.size != content.size {
		return false, false, nil
	}
	_, err = io.Copy(io.Discard, Verify(&bounded{ctx: ctx, content: stored, limit: object.size}, content.digest))
	if errors.Is(err, ErrMismatch) {
		return false, false, nil
	}
	return err == nil, object.old(), err
}

func sameSize(claim oona.TensorClaim, size int64) error {
	if size != claim.Size {
		return fmt.Errorf("%w: %s has %d bytes in the store, %d in the claim", ErrMismatch, claim.Key, size, claim.Size)
	}
	return nil
}

// rewrite reads the object under the key, and writes its content by means of write. It
// does not write content that does not have the hash in the key.
func rewrite(ctx context.Context, in objects, key string, limit int64, write func(*Spooled) error) (err error) {
	stored, _, err := in.open(ctx, key)
	if err != nil {
		return err
	}
	content, err := spool(ctx, stored, limit)
	if err = errors.Join(err, stored.Close()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	if Key(content.digest) != key {
		return fmt.Errorf("%w: its SHA-256 is %x", ErrMismatch, content.digest)
	}
	return write(content)
}
