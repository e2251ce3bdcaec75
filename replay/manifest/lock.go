package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// LockName is the file name of the lock in a directory.
const LockName = "_oona.lock"

// ErrLocked is returned for a directory to which another process writes.
var ErrLocked = errors.New("another process writes to the directory")

// Held is the lock of a directory.
type Held struct {
	file *os.File
	dir  string
	made []string // directories that Lock has made, the innermost first
}

// Close releases the lock. If nothing was written, it also removes the directories that Lock has made.
func (h *Held) Close() error {
	entries, err := os.ReadDir(h.dir)
	if err == nil && len(entries) == 1 && entries[0].Name() == LockName {
		err = os.Remove(filepath.Join(h.dir, LockName))
		for _, dir := range h.made {
			if os.Remove(dir) != nil { // the directory is not empty
				break
			}
		}
	}
	return errors.Join(err, h.file.Close())
}

// absent returns which of a directory and its parents do not exist.
func absent(dir string) (all []string) {
	for {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			return all
		}
		all, dir = append(all, dir), filepath.Dir(dir)
	}
}

// Lock locks a directory for writing, and makes it if it does not exist. The error wraps
// ErrLocked. The lock ends with the process, or when it is closed.
func Lock(dir string) (*Held, error) {
	held := &Held{dir: dir, made: absent(dir)}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, LockName), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrLocked
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), file.Close())
	}
	held.file = file
	return held, nil
}
