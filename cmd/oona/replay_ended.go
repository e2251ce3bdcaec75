package main

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/morphogenetic/oona/replay/archive"
	"github.com/morphogenetic/oona/replay/manifest"
)

// files are finished files of a directory.
type files struct {
	Count int
	Bytes int64
}

// finished returns the finished files of the directory that is written to, if there is one.
func (r *replayRun) finished() (all files, err error) {
	dir := r.directory()
	if dir == "" {
		return all, nil
	}
	m, err := manifest.Read(dir)
	if errors.Is(err, manifest.ErrNone) {
		return all, nil
	}
	if err != nil {
		return all, err
	}
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			for _, f := range p.Files {
				all.Count, all.Bytes = all.Count+1, all.Bytes+f.Bytes
			}
		}
	}
	return all, nil
}

// diskFullError is the error of a replay that a full disk has ended.
type diskFullError struct {
	Dir     string // that was written to; "": no directory
	File    string // of --openmetrics; "": none
	Written files  // that this call has finished
	Kept    files  // with those of earlier calls
	cause   error
}

func (e *diskFullError) Unwrap() error { return e.cause }

// Error says what was written, what is kept, and what to do.
func (e *diskFullError) Error() string {
	switch {
	case e.Dir != "":
		return fmt.Sprintf("%v; this call has written %d whole files of %s, and %s now has %d of %s, which are kept; make room, or move %s to a larger disk, and run the same command again, which continues there", e.cause, e.Written.Count, byteSize(e.Written.Bytes), e.Dir, e.Kept.Count, byteSize(e.Kept.Bytes), e.Dir)
	case e.File != "":
		return fmt.Sprintf("%v; %s was not written; make room, or give a file on another disk, and run the command again", e.cause, e.File)
	}
	return fmt.Sprintf("%v; what was printed is incomplete, and may end within a line; make room, and run the command again", e.cause)
}

// ended adds to the error of a replay what it leaves behind, and what to do. before are the
// files that were finished when it began.
func (r *replayRun) ended(err error, before files) error {
	switch {
	case errors.Is(err, errSpace), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		now, failed := r.finished()
		if failed != nil {
			return errors.Join(err, failed)
		}
		written := files{now.Count - before.Count, now.Bytes - before.Bytes}
		return &diskFullError{Dir: r.directory(), File: r.Out.OpenMetrics, Written: written, Kept: now, cause: err}
	case errors.Is(err, archive.ErrForm):
		return fmt.Errorf("%w; replace the file by a good copy, or archive the range again%s", err, r.spoiled())
	}
	return err
}

// spoiled says what may have come from a damaged file before the damage was found.
func (r *replayRun) spoiled() string {
	switch {
	case r.directory() != "":
		return fmt.Sprintf("; what this call has written to %s may come from the damage, so write to a new directory then", r.directory())
	case r.Out.Publish, r.Send.ToTopic != "":
		return "; what this call has sent may come from the damage, so send to new topics then"
	case r.Lines:
		return "; what was printed may come from the damage"
	}
	return ""
}
