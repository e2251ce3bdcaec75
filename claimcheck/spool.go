package claimcheck

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/size"
)

// inMemory is the size in bytes from which on content is spooled in a file.
const inMemory = 1 << 20

// Spooled is content that was read to its end.
type Spooled struct {
	size   int64
	digest [sha256.Size]byte
	memory []byte
	file   *os.File // unlinked; used instead of memory if not nil
}

// spool reads content to its end. The content may have at most limit bytes.
func spool(ctx context.Context, content io.Reader, limit int64) (_ *Spooled, err error) {
	hash := sha256.New()
	r := io.TeeReader(&bounded{ctx: ctx, content: content, limit: limit}, hash)
	s := new(Spooled)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	var memory bytes.Buffer
	s.size, err = io.Copy(&memory, io.LimitReader(r, inMemory))
	if err != nil {
		return nil, err
	}
	if s.size == inMemory { // the content may be longer
		if s.file, err = namelessFile(); err != nil {
			return nil, err
		}
		s.size, err = io.Copy(s.file, io.MultiReader(&memory, r))
		if failed, ok := errors.AsType[*fs.PathError](err); ok && failed.Path == s.file.Name() {
			return nil, notSpooled(err)
		}
		if err != nil {
			return nil, err
		}
	}
	s.memory = memory.Bytes()
	s.digest = [sha256.Size]byte(hash.Sum(nil))
	return s, nil
}

// namelessFile returns an unlinked file. The file system removes it when it is closed or the process
// ends.
func namelessFile() (*os.File, error) {
	f, err := os.CreateTemp("", "oona-tensor-")
	if err != nil {
		return nil, notSpooled(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(notSpooled(err), f.Close())
	}
	return f, nil
}

// probeSpool returns an error if content cannot be spooled.
func probeSpool() error {
	f, err := namelessFile()
	if err != nil {
		return err
	}
	if _, err := f.Write(make([]byte, 1)); err != nil {
		return errors.Join(notSpooled(err), f.Close())
	}
	return f.Close()
}

// notSpooled wraps an error of a file in $TMPDIR, and says what to do.
func notSpooled(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("%w: %w: %w", ErrSpool, &oona.FieldError{Field: "$TMPDIR", Reason: fmt.Sprintf("is %s; it must be writable and have free space", os.TempDir())}, err)
}

// section returns size bytes of the content from offset on.
func (s *Spooled) section(offset, size int64) *io.SectionReader {
	if s.file != nil {
		return io.NewSectionReader(s.file, offset, size)
	}
	return io.NewSectionReader(bytes.NewReader(s.memory), offset, size)
}

// Close frees the memory or the file.
func (s *Spooled) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// bounded reads content. Read returns an error if the content exceeds the limit or the context has
// ended.
type bounded struct {
	ctx     context.Context
	content io.Reader
	limit   int64
	read    int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.content.Read(p)
	if b.read += int64(n); b.read > b.limit {
		return n, fmt.Errorf("%w: %w", &oona.FieldError{Field: "size", Reason: fmt.Sprintf("is more than the limit, %s", size.Text(b.limit))}, ErrTooLarge)
	}
	return n, err
}
