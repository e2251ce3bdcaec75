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

// CheckHere returns what is wrong with the store on this machine, as far as it can
// be said without asking the store, and leaves nothing behind: $TMPDIR, files and
// credentials of S3, or the directory. Open and Probe would say the same.
func (c Config) CheckHere() error {
	if c.Kind == KindNone {
		return nil
	}
	if err := probeSpool(); err != nil && !errors.Is(err, ErrFull) { // room may come
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
		_, err := c.S3.credentials(context.Background())
		return err
	}
	return nil
}

// usable returns why a directory cannot be written to or made.
func usable(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir:
		return usable(filepath.Dir(dir)) // where it would be made
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("cannot be used: %s: %w", dir, syscall.ENOTDIR)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("cannot be used: write to %s: %w", dir, err)
	}
	return nil
}
