package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"
)

// errSpace is returned before a disk is full. See diskFullError for what users are told.
var errSpace = errors.New("the disk is almost full")

const (
	// spaceReserve is what a replay leaves free; of a small file system, a twentieth.
	spaceReserve = 64 << 20
	// spaceInterval is the time between two checks.
	spaceInterval = time.Second
)

// space is the free space of a file system.
type space struct {
	dir     string
	free    int64 // at the last check
	reserve int64
	checked time.Time
}

// spaceOf returns the space where a directory is, or will be.
func spaceOf(dir string) (*space, error) {
	at, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &space{dir: at}
	for {
		err := s.measure()
		if !errors.Is(err, fs.ErrNotExist) || filepath.Dir(s.dir) == s.dir {
			return s, err
		}
		s.dir = filepath.Dir(s.dir)
	}
}

func (s *space) measure() error {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &stat); err != nil {
		return fmt.Errorf("find the free space of %s: %w", s.dir, err)
	}
	block := int64(stat.Bsize) //nolint:unconvert // its type depends on the system
	s.free = int64(stat.Bavail) * block
	s.reserve = min(spaceReserve, int64(stat.Blocks)*block/20)
	s.checked = time.Now()
	return nil
}

// check returns an error that wraps errSpace if there is too little space. Often it does
// nothing. A nil space is never full.
func (s *space) check() error {
	if s == nil || time.Since(s.checked) < spaceInterval {
		return nil
	}
	return s.now()
}

// now is check without delay.
func (s *space) now() error {
	if err := s.measure(); err != nil {
		return err
	}
	if s.free < s.reserve {
		return fmt.Errorf("%w: %s has %s free, and %s are left free", errSpace, s.dir, byteSize(s.free), byteSize(s.reserve))
	}
	return nil
}
