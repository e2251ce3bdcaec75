package tensors

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
)

// Folder is the folder of the files, below the directory of a Resolver.
const Folder = "tensors"

// concurrentFetches is how many tensors of a frame are fetched at the same time.
const concurrentFetches = 8

// Source returns the content of claims. A [claimcheck.Store] is a Source. The last Read verifies the
// SHA-256. Calls are concurrent.
type Source interface {
	CheckOut(ctx context.Context, claim oona.TensorClaim) (io.ReadCloser, error)
}

// Resolver writes the tensors of frames to files. A file gets its name when it is complete,
// verified and on disk, so a file that exists is not fetched again. Several processes may write to the
// same directory. A Resolver is not safe for concurrent use.
type Resolver struct {
	Store Source // source of the content of claims; may be nil if no frame has a claim
	Dir   string

	// Lost is called with a tensor that cannot be resolved, now or later: the store does not have
	// it or has other bytes, the claim is for another store, or the tensor is too large. The error
	// wraps claimcheck.ErrNotFound, ErrMismatch, ErrForeign or ErrTooLarge. If Lost is nil, Frame
	// returns such an error.
	Lost func(f *oona.Frame, t *oona.Tensor, why error)

	Counts Counts

	prepared bool
}

// Counts says what a Resolver has done. Each tensor of a frame is counted once.
type Counts struct {
	Written int64 `json:"written"` // files that were written
	Bytes   int64 `json:"bytes"`   // size of the elements in these files
	Present int64 `json:"present"` // tensors whose file existed already
	Lost    int64 `json:"lost"`
}

// Frame writes the tensors of a frame that have no file yet. It returns when they are on
// disk. Files are written for tensors in the frame, too.
func (r *Resolver) Frame(ctx context.Context, f *oona.Frame) error {
	if len(f.Tensors) == 0 {
		return nil
	}
	folder := filepath.Join(r.Dir, Folder)
	if !r.prepared {
		if err := prepare(folder); err != nil {
			return err
		}
		r.prepared = true
	}
	results := make([]result, len(f.Tensors))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrentFetches)
	for i := range f.Tensors {
		group.Go(func() error {
			results[i] = r.tensor(ctx, folder, &f.Tensors[i])
			if err := results[i].err; err != nil && (r.Lost == nil || !lost(err)) {
				return fmt.Errorf("tensor %s of seed %d, run %s, layer %s, sequence %d: %w", f.Tensors[i].Name, f.Tensors[i].Seed, f.Run, f.Layer, f.Sequence, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	written := false
	for i, done := range results {
		switch {
		case done.err != nil:
			r.Counts.Lost++
			r.Lost(f, &f.Tensors[i], done.err)
		case done.present:
			r.Counts.Present++
		default:
			written = true
			r.Counts.Written++
			r.Counts.Bytes += done.bytes
		}
	}
	if !written {
		return nil
	}
	return syncFolder(folder)
}

// result says what was done with a tensor.
type result struct {
	present bool
	bytes   int64
	err     error
}

// lasting has the errors that come again as long as the store does not change.
var lasting = []error{claimcheck.ErrNotFound, claimcheck.ErrMismatch, claimcheck.ErrForeign, claimcheck.ErrTooLarge}

func lost(err error) bool { return reason(err) != "" }

// reason returns the lasting error that an error wraps, or "".
func reason(err error) string {
	for _, why := range lasting {
		if errors.Is(err, why) {
			return why.Error()
		}
	}
	return ""
}

// tensor writes the file of a tensor, unless it exists.
func (r *Resolver) tensor(ctx context.Context, folder string, t *oona.Tensor) result {
	header, err := Header(t.DType, t.Shape)
	if err != nil {
		return result{err: err}
	}
	digest, size := DigestOf(t)
	name := filepath.Join(folder, FileName(digest, t.DType, t.Shape))
	info, err := os.Stat(name)
	if err == nil && info.Size() == int64(len(header))+size {
		return result{present: true}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return result{err: err}
	}
	content, err := r.content(ctx, t)
	if err != nil {
		return result{err: err}
	}
	return result{bytes: size, err: errors.Join(writeFile(name, header, content), content.Close())}
}

// DigestOf returns the SHA-256 and the size of a tensor's elements.
func DigestOf(t *oona.Tensor) (digest [sha256.Size]byte, size int64) {
	if t.Claim != nil {
		return t.Claim.SHA256, t.Claim.Size
	}
	return sha256.Sum256(t.Data), int64(len(t.Data))
}

// errNoStore is returned for a claim if the Resolver has no store.
var errNoStore = errors.New("the tensor is in a tensor store, and none is given (--tensor-store and its flags)")

func (r *Resolver) content(ctx context.Context, t *oona.Tensor) (io.ReadCloser, error) {
	switch {
	case t.Claim == nil:
		return io.NopCloser(bytes.NewReader(t.Data)), nil
	case r.Store == nil:
		return nil, errNoStore
	}
	return r.Store.CheckOut(ctx, *t.Claim)
}

// temporary is the end of the names of files that are being written.
const temporary = ".tmp"

// writeFile writes a file under a temporary name, and renames it when it is complete and on
// disk. It does not sync the rename.
func writeFile(name string, header []byte, content io.Reader) (err error) {
	file, err := os.OpenFile(filepath.Join(filepath.Dir(name), rand.Text()+temporary), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = file.Write(header)
	if err == nil {
		_, err = io.Copy(file, content)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}

// abandoned is the age at which temporary files are removed. Their writers have certainly ended
// by then.
const abandoned = 24 * time.Hour

// prepare makes the folder, and removes what killed processes have left there.
func prepare(folder string) error {
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return fmt.Errorf("make the directory of tensors: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(folder, "*"+temporary))
	if err != nil {
		return fmt.Errorf("look for temporary files of tensors: %w", err)
	}
	for _, name := range left {
		if info, err := os.Stat(name); err != nil || time.Since(info.ModTime()) < abandoned {
			continue // it has its final name, or is being written
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a temporary file of a tensor: %w", err)
		}
	}
	return nil
}

// syncFolder makes renames in a folder durable.
func syncFolder(name string) error {
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}
