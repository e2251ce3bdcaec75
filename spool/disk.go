package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// disk is a directory of the real file system.
type disk struct{ dir string }

const lockName = "LOCK"

// OpenDirectory returns a directory of the file system. It makes the directory and its parents
// if they do not exist.
func OpenDirectory(dir string) (FileSystem, error) {
	if err := makeDirectory(filepath.Clean(dir)); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return disk{dir}, nil
}

// makeDirectory makes a directory and syncs its parent. Without the sync, the directory might be
// missing after a crash of the system, although its files were synced.
func makeDirectory(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeDirectory(filepath.Dir(dir)); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if err == nil {
		return disk{filepath.Dir(dir)}.Sync()
	}
	if info, errStat := os.Stat(dir); errStat == nil {
		if info.IsDir() {
			return nil // it existed
		}
		err = &fs.PathError{Op: "mkdir", Path: dir, Err: unix.ENOTDIR}
	}
	return err
}

func (d disk) path(name string) string { return filepath.Join(d.dir, name) }

func (d disk) List() ([]string, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && e.Name() != lockName {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d disk) Create(name string) (File, error) {
	file, err := os.OpenFile(d.path(name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return diskFile{file}, nil
}

func (d disk) Open(name string) (File, error) {
	file, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	return diskFile{file}, nil
}

func (d disk) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d disk) Remove(name string) error { return os.Remove(d.path(name)) }

func (d disk) Sync() error {
	dir, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (d disk) Free() (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(d.dir, &s); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: d.dir, Err: err}
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:unconvert // the types differ between systems
}

// Lock repeats its attempt for a short time, because InUse in another process may hold the lock for
// an instant.
const (
	lockAttempts = 50
	lockPause    = 10 * time.Millisecond
)

func (d disk) Lock() (File, error) {
	file, err := os.OpenFile(d.path(lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for n := 0; n < lockAttempts && errors.Is(err, unix.EWOULDBLOCK); n++ {
		time.Sleep(lockPause)
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("%s: %w", d.dir, err), file.Close())
	}
	return diskFile{file}, nil
}

func (d disk) Has(name string, file File) (bool, error) {
	now, err := os.Stat(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	opened, ok := file.(diskFile)
	if !ok {
		return false, nil
	}
	then, err := opened.Stat()
	return err == nil && os.SameFile(now, then), err
}

// diskFile is a file whose Sync may leave out metadata that reading does not need, such as times.
type diskFile struct{ *os.File }

func (f diskFile) Sync() error {
	for {
		err := datasync(f.File)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
