package claimcheck

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// incoming is where files are written, within the directory, before they get
// their names.
const incoming = "incoming"

// abandoned is the age of a file in incoming whose writer is surely dead.
const abandoned = 24 * time.Hour

// OpenDirectory returns a store in a directory, which is made if need be. A
// tensor is a file whose path is its key. Several processes may use a directory
// at once. limit bounds a tensor, in bytes.
func OpenDirectory(dir, bucket string, limit int64) (*Store, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the directory of tensors: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the directory of tensors: %w", err)
	}
	d := &directory{root}
	if err := d.prepare(); err != nil {
		return nil, fmt.Errorf("prepare the directory of tensors: %w", errors.Join(err, root.Close()))
	}
	return &Store{bucket: bucket, limit: limit, objects: d}, nil
}

// directory is objects in files. Its root is closed with the process, or when
// nobody refers to it any more.
type directory struct{ root *os.Root }

// prepare makes all folders, so that a check-in need only sync its own.
func (d *directory) prepare() error {
	if err := d.root.MkdirAll(incoming, 0o750); err != nil {
		return err
	}
	for i := range 256 {
		if err := d.root.MkdirAll(path.Join(Prefix, fmt.Sprintf("%02x", i)), 0o750); err != nil {
			return err
		}
	}
	for name := path.Clean(Prefix); ; name = path.Dir(name) {
		if err := d.sync(name); err != nil {
			return err
		}
		if name == "." {
			return d.sweep()
		}
	}
}

// sweep removes what writers that died have left.
func (d *directory) sweep() error {
	entries, err := fs.ReadDir(d.root.FS(), incoming)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || time.Since(info.ModTime()) < abandoned {
			continue // gone already, or being written
		}
		if err := d.root.Remove(path.Join(incoming, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (d *directory) put(ctx context.Context, key string, content *Spooled) (fresh bool, err error) {
	there, err := d.size(ctx, key)
	switch {
	case err == nil && there == content.size:
		return false, d.sync(path.Dir(key)) // whose writer may not have come to it yet
	case err != nil && !errors.Is(err, ErrNotFound):
		return false, err
	}
	damaged := err == nil // by whatever: what is under the key is not what it says
	name := path.Join(incoming, rand.Text())
	if err := d.write(ctx, name, content); err != nil {
		return false, noRoom(errors.Join(err, d.remove(name)))
	}
	defer func() { err = errors.Join(err, d.remove(name)) }()
	if damaged {
		err = d.root.Rename(name, key)
	} else {
		// Unlike a rename, a link has one winner.
		err = d.root.Link(name, key)
	}
	lost := errors.Is(err, fs.ErrExist)
	if err != nil && !lost {
		return false, noRoom(err)
	}
	return !lost, d.sync(path.Dir(key))
}

// write writes a file and syncs it.
func (d *directory) write(ctx context.Context, name string, content *Spooled) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o440)
	if err != nil {
		return err
	}
	all := &bounded{ctx: ctx, content: content.section(0, content.size), limit: content.size}
	_, err = io.Copy(f, all)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// remove removes a file that may be gone.
func (d *directory) remove(name string) error {
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sync makes the names in a folder durable.
func (d *directory) sync(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d *directory) open(_ context.Context, key string) (io.ReadCloser, int64, error) {
	f, err := d.root.Open(key)
	if err != nil {
		return nil, 0, absent(err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

func (d *directory) size(_ context.Context, key string) (int64, error) {
	info, err := d.root.Stat(key)
	if err != nil {
		return 0, absent(err)
	}
	return info.Size(), nil
}

func (d *directory) probe(context.Context) error {
	_, err := d.root.Stat(strings.TrimSuffix(Prefix, "/"))
	return absent(err)
}

func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// noRoom recognises a file system that is full.
func noRoom(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
