package claimcheck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/morphogenetic/oona"
)

// CheckHere checks what the store needs on this machine: $TMPDIR, the files and credentials
// of S3, or the directory. It leaves no file behind. It sends no request, so it does not
// notice if STS or another server gives no credentials. Its errors are those that Open and
// Probe would return.
func (c Config) CheckHere() error {
	if c.Kind == KindNone {
		return nil
	}
	if err := probeSpool(); err != nil && !errors.Is(err, ErrFull) { // a full disk may be temporary
		return err
	}
	switch c.Kind {
	case KindDirectory:
		if err := usable(filepath.Clean(c.Directory)); err != nil {
			return &oona.FieldError{Field: "--tensor-directory", Reason: err.Error()}
		}
	case KindS3:
		if _, err := c.S3.httpClient(); err != nil {
			return err
		}
		provider, err := c.S3.credentials()
		if err != nil {
			return err
		}
		if chain, ok := provider.(*chain); ok {
			_, err = chain.source(context.Background())
		}
		return err
	}
	return nil
}

// usable returns an error if a directory cannot be written to or made.
func usable(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir:
		return usable(filepath.Dir(dir)) // the directory would be made there
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("cannot be used: %s: %w", dir, syscall.ENOTDIR)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("cannot be used: this process may not write to %s: %w", dir, err)
	}
	return nil
}
