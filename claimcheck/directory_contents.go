package claimcheck

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"time"
)

func (d *directory) each(ctx context.Context, prefix string, take func(key string, i info) error) error {
	f, err := d.current()
	if err != nil {
		return err
	}
	err = fs.WalkDir(f.root.FS(), path.Clean(prefix), func(name string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fs.ErrNotExist): // it was removed in the meantime, or there are none
			return nil
		case err != nil || !entry.Type().IsRegular():
			return err
		}
		stat, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return take(name, info{stat.Size(), stat.ModTime()})
	})
	return meaning(err)
}

func (d *directory) move(ctx context.Context, moves []relocation, before time.Time, replace bool) (moved []relocation, err error) {
	f, err := d.current()
	if err != nil {
		return nil, err
	}
	changed := make(map[string]struct{}) // directories
	for _, m := range moves {
		if err = ctx.Err(); err != nil {
			break
		}
		var done bool
		if done, err = f.move(m, before, replace); err != nil {
			break
		}
		if done {
			changed[path.Dir(m.from)], changed[path.Dir(m.to)] = struct{}{}, struct{}{}
			moved = append(moved, m)
		}
	}
	for name := range changed {
		err = errors.Join(err, f.sync(name))
	}
	return moved, meaning(err)
}

// move renames a file, and looks at its time afterwards. If a writer has renewed the file
// before the rename, move puts it back. If a writer tries to renew it after the rename, it
// finds the file missing, and writes it again.
func (f *folder) move(m relocation, before time.Time, replace bool) (done bool, err error) {
	if stale, err := f.stale(m.from, before); err != nil || !stale {
		return false, err
	}
	if err := f.root.MkdirAll(path.Dir(m.to), 0o750); err != nil {
		return false, err
	}
	if !replace {
		if err := f.root.Link(m.from, m.to); err != nil && !errors.Is(err, fs.ErrExist) {
			return false, ifExists(err)
		}
		return true, f.remove(m.from)
	}
	if err := f.root.Rename(m.from, m.to); err != nil {
		return false, ifExists(err)
	}
	stale, err := f.stale(m.to, before)
	if err == nil && !stale {
		if err = f.root.Link(m.to, m.from); errors.Is(err, fs.ErrExist) {
			err = nil // it has been written again
		}
		return false, errors.Join(err, f.remove(m.to), f.sync(path.Dir(m.from)))
	}
	if err == nil {
		now := time.Now()
		err = f.root.Chtimes(m.to, now, now)
	}
	return true, err
}

// stale reports whether a file exists and was not changed after the given time. If the time
// is zero, it reports whether the file exists.
func (f *folder) stale(name string, before time.Time) (bool, error) {
	stat, err := f.root.Stat(name)
	if err != nil {
		return false, ifExists(err)
	}
	return before.IsZero() || !stat.ModTime().After(before), nil
}

// ifExists returns the error unless it says that a file is missing.
func ifExists(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (d *directory) remove(ctx context.Context, keys []string) error {
	f, err := d.current()
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := errors.Join(ctx.Err(), f.remove(key)); err != nil {
			return meaning(err)
		}
	}
	return nil
}
