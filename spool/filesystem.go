package spool

import (
	"errors"
	"io"
)

// FileSystem is one directory of a file system. The tests have an implementation that loses
// and reorders writes that are not synced.
type FileSystem interface {
	// List returns the names of the files in the directory.
	List() ([]string, error)
	// Create creates a file. It returns an error if the name exists.
	Create(name string) (File, error)
	// Open opens a file for reading.
	Open(name string) (File, error)
	// Rename renames a file, and replaces an existing file with the new name.
	Rename(from, to string) error
	Remove(name string) error
	// Sync makes the creation, renaming and removal of files durable.
	Sync() error
	// Free returns how many bytes can still be written.
	Free() (int64, error)
	// Lock locks the directory for this process, with a file that has the name LOCK. The error wraps
	// ErrLocked if another process has it.
	Lock() (File, error)
	// Has reports whether an open file is still in the directory under its name. It is not if
	// somebody has removed or replaced the file or the directory.
	Has(name string, file File) (bool, error)
}

// File is a file of a FileSystem.
type File interface {
	io.Writer
	io.ReaderAt
	// Sync returns when everything that was written is on disk.
	Sync() error
	Size() (int64, error)
	Close() error
}

var (
	// ErrLocked is returned if another process has locked the directory.
	ErrLocked = errors.New("another process uses the directory")
	// ErrFull is wrapped by the errors of Append if the record does not fit.
	ErrFull = errors.New("the spool is full")
	// ErrTooLarge is wrapped by the errors of Append if the record is larger than RecordBytes.
	ErrTooLarge = errors.New("the record is too large")
	// ErrReplaced is wrapped by the errors of Append if somebody has removed or replaced the directory,
	// or a file that the spool uses. What is written to such a file is lost when the process ends.
	ErrReplaced = errors.New("the directory of the spool, or a file in it, was removed or replaced while it was in use; restart the process that uses it when the directory is in place")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the spool is closed")
)
