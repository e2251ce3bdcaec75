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
	"sync"
	"syscall"
	"time"

	"github.com/morphogenetic/oona"
)

// incoming is the subdirectory for files that are being written. They get the
// name of their key when they are complete.
const incoming = "incoming"

// abandoned is the age at which files in incoming are deleted: their writers have
// surely ended.
const abandoned = 24 * time.Hour

// OpenDirectory returns a store in a directory. It makes the directory if it does
// not exist, now or later. A tensor is a file whose path is its key. Several
// processes may share a directory. limit is the greatest size of a tensor in bytes.
func OpenDirectory(dir, bucket string, limit int64) (*Store, error) {
	d := &directory{path: dir, fsync: (*os.File).Sync}
	if _, err := d.current(); err != nil {
		return nil, err
	}
	return &Store{bucket: bucket, limit: limit, objects: d}, nil
}

// directory implements objects with files.
type directory struct {
	path  string
	fsync func(*os.File) error

	mu   sync.Mutex
	root *os.Root // never closed here: operations that still run may use it
}

// current returns the directory that has the path now. If it is not the one that was opened
// before, current opens it.
func (d *directory) current() (*folder, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.root != nil {
		ours, err := d.root.Stat(".")
		there, missing := os.Stat(d.path)
		if err == nil && missing == nil && os.SameFile(ours, there) {
			return &folder{d.root, d.fsync}, nil
		}
	}
	if err := os.MkdirAll(d.path, 0o750); err != nil {
		return nil, fmt.Errorf("make the directory of tensors: %w", meaning(err))
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, fmt.Errorf("open the directory of tensors: %w", meaning(err))
	}
	f := &folder{root, d.fsync}
	if err := f.prepare(); err != nil {
		return nil, fmt.Errorf("prepare the directory of tensors: %w", errors.Join(meaning(err), root.Close()))
	}
	d.root = root
	return f, nil
}

func (d *directory) put(ctx context.Context, key string, content *Spooled) (fresh bool, err error) {
	there, old, err := holds(ctx, d, key, content)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	replace := err == nil && !there
	f, err := d.current()
	if err != nil {
		return false, err
	}
	if there && old {
		err := f.renew(key)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it has been removed in the meantime
			there = false
		case errors.Is(err, fs.ErrPermission): // the file belongs to another user
			there, replace = false, true
		case err != nil:
			return false, meaning(err)
		}
	}
	if there {
		return false, meaning(f.sync(path.Dir(key))) // the writer of the file may not have synced it yet
	}
	fresh, err = f.add(ctx, key, content, replace)
	if errors.Is(err, fs.ErrNotExist) { // a folder was removed
		if err := f.prepare(); err != nil {
			return false, meaning(err)
		}
		fresh, err = f.add(ctx, key, content, replace)
	}
	return fresh, meaning(err)
}

func (d *directory) open(_ context.Context, key string) (io.ReadCloser, info, error) {
	current, err := d.current()
	if err != nil {
		return nil, info{}, err
	}
	f, err := current.root.Open(key)
	if err != nil {
		return nil, info{}, absent(err)
	}
	stat, err := f.Stat()
	if err != nil {
		return nil, info{}, errors.Join(err, f.Close())
	}
	return f, info{stat.Size(), stat.ModTime()}, nil
}

func (d *directory) stat(_ context.Context, key string) (info, error) {
	current, err := d.current()
	if err != nil {
		return info{}, err
	}
	stat, err := current.root.Stat(key)
	if err != nil {
		return info{}, absent(err)
	}
	return info{stat.Size(), stat.ModTime()}, nil
}

func (d *directory) renew(ctx context.Context, key string, limit int64) error {
	f, err := d.current()
	if err != nil {
		return err
	}
	if err = f.renew(key); !errors.Is(err, fs.ErrPermission) {
		return absent(err)
	}
	return rewrite(ctx, d, key, limit, func(content *Spooled) error { // the file belongs to another user
		_, err := f.add(ctx, key, content, true)
		return meaning(err)
	})
}

// probe writes and links a file as put does, and removes it.
func (d *directory) probe(ctx context.Context, _ string, content *Spooled) error {
	f, err := d.current()
	if err != nil {
		return err
	}
	name := path.Join(incoming, rand.Text())
	err = f.write(ctx, name, content)
	if err == nil {
		err = errors.Join(f.root.Link(name, name+".linked"), f.remove(name+".linked"))
	}
	return meaning(errors.Join(err, f.remove(name)))
}

// folder is the directory that a path referred to at one time.
type folder struct {
	root  *os.Root
	fsync func(*os.File) error
}

// prepare makes and syncs all subdirectories, so that a check-in has to sync only
// its own.
func (f *folder) prepare() error {
	if err := f.root.MkdirAll(incoming, 0o750); err != nil {
		return err
	}
	for i := range 256 {
		if err := f.root.MkdirAll(path.Join(Prefix, fmt.Sprintf("%02x", i)), 0o750); err != nil {
			return err
		}
	}
	for name := path.Clean(Prefix); ; name = path.Dir(name) {
		if err := f.sync(name); err != nil {
			return err
		}
		if name == "." {
			return f.sweep()
		}
	}
}

// sweep deletes abandoned files.
func (f *folder) sweep() error {
	entries, err := fs.ReadDir(f.root.FS(), incoming)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || time.Since(info.ModTime()) < abandoned {
			continue // deleted already, or being written
		}
		if err := f.root.Remove(path.Join(incoming, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (f *folder) renew(key string) error {
	now := time.Now()
	return f.root.Chtimes(key, now, now)
}

// add writes the content under its key. With replace, it replaces the file there.
// It returns false if another writer was first.
func (f *folder) add(ctx context.Context, key string, content *Spooled, replace bool) (fresh bool, err error) {
	name := path.Join(incoming, rand.Text())
	if err := f.write(ctx, name, content); err != nil {
		return false, errors.Join(err, f.remove(name))
	}
	defer func() { err = errors.Join(err, f.remove(name)) }()
	if replace {
		err = f.root.Rename(name, key)
	} else {
		// Of concurrent links, one succeeds; renames would all succeed.
		err = f.root.Link(name, key)
	}
	lost := errors.Is(err, fs.ErrExist)
	if err != nil && !lost {
		return false, err
	}
	return !lost, f.sync(path.Dir(key))
}

// write writes a file and syncs it.
func (f *folder) write(ctx context.Context, name string, content *Spooled) error {
	file, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o440)
	if err != nil {
		return err
	}
	all := &bounded{ctx: ctx, content: content.section(0, content.size), limit: content.size}
	_, err = io.Copy(file, all)
	if err == nil {
		err = f.fsync(file)
	}
	return errors.Join(err, file.Close())
}

// remove deletes a file, which may be missing.
func (f *folder) remove(name string) error {
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sync makes the entries of a directory durable.
func (f *folder) sync(name string) error {
	file, err := f.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.fsync(file), file.Close())
}

// meaning wraps an error of the file system in the corresponding error of the store.
func meaning(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR), errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("%w: %w: %w", ErrRefused, &oona.FieldError{Field: "--tensor-directory", Reason: "must be a directory that this process may write to, in a file system with hard links"}, err)
	}
	return err
}

// absent is meaning for errors of opening a tensor's file.
func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return meaning(err)
}
