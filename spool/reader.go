package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"time"
)

// Next waits for the next record, and returns it. Its body is valid until the next call. Next
// returns each record once, even if Done was not called for the previous one. The error wraps
// ErrClosed after Close.
func (s *Spool) Next(ctx context.Context) (Record, error) {
	for {
		seg, limit, wait, err := s.current()
		if err != nil {
			return Record{}, err
		}
		if seg == nil {
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return Record{}, fmt.Errorf("spool: %w", context.Cause(ctx))
			}
		}
		r, found, err := s.readFrom(seg, limit)
		if err != nil || found {
			return r, err
		}
		if err := s.doneWithSkipped(); err != nil {
			s.opts.Logger.Warn("the spool could not save which records were skipped, or could not delete a file of them; after a restart, some may be read again", "err", err)
		}
	}
}

// doneWithSkipped marks records that were skipped as done if all records before them are done. If
// some are not, the call of Done for those marks the skipped ones, too. Without this, the spool would
// not be empty until another record is appended and done.
func (s *Spool) doneWithSkipped() error {
	s.mu.Lock()
	skipped := s.returned <= s.done && s.done < s.position
	s.mu.Unlock()
	if !skipped {
		return nil
	}
	return s.Done(s.position - 1)
}

// current returns the segment to read from, and the sequence number after its last valid
// record. If there is nothing to read, it returns a channel that is closed when there may be.
func (s *Spool) current() (seg *segment, limit uint64, wait <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, 0, nil, fmt.Errorf("spool: %w", ErrClosed)
	}
	for _, seg := range s.segments {
		if s.position < seg.end {
			return seg, seg.end, nil, nil
		}
	}
	return nil, 0, s.arrived, nil
}

// readFrom returns the next record of a segment. If it returns false, it has skipped damage or
// records that are done.
func (s *Spool) readFrom(seg *segment, limit uint64) (Record, bool, error) {
	if s.reading != seg {
		if err := s.leave(); err != nil {
			s.opts.Logger.Warn("the spool could not close a file that it has read; no record is lost", "err", err)
		}
		file, err := s.fs.Open(seg.name)
		if err != nil {
			return Record{}, false, s.unreadable(seg, err)
		}
		s.reading, s.scan = seg, newScanner(file, seg.header, mostRecord)
	}
	r, bad, err := s.scan.read(limit)
	switch {
	case errors.Is(err, io.EOF):
		end, err := s.scan.file.Size()
		if err != nil {
			return Record{}, false, s.unreadable(seg, err)
		}
		s.skip(seg, damage{from: s.scan.at, to: end, first: s.scan.next, next: limit})
		s.scan.next, s.scan.at = limit, end
		s.position = max(s.position, limit)
	case err != nil:
		return Record{}, false, s.unreadable(seg, err)
	case bad != nil:
		s.skip(seg, *bad)
		s.position = max(s.position, bad.next)
	case r.Sequence >= s.position:
		s.failures, s.position, s.returned = 0, r.Sequence+1, r.Sequence+1
		return r, true, nil
	}
	s.failures = 0
	return Record{}, false, nil
}

// leave closes the segment that is being read.
func (s *Spool) leave() error {
	if s.scan == nil {
		return nil
	}
	file := s.scan.file
	s.reading, s.scan = nil, nil
	return file.Close()
}

// readAttempts is the number of attempts to read a file before it is set aside.
const readAttempts = 5

// unreadable returns an error, after which the user of the spool calls Next again. After some attempts,
// unreadable skips the segment instead, so that it does not block the segments after it. It then
// returns nil, and the segment is set aside later.
func (s *Spool) unreadable(seg *segment, err error) error {
	err = errors.Join(err, s.leave())
	s.failures++
	if s.failures < readAttempts {
		return fmt.Errorf("spool: read %s: %w", seg.name, err)
	}
	s.failures = 0
	s.mu.Lock()
	lost := int64(seg.end - s.position)
	s.stats.Damaged++
	s.stats.Lost += lost
	s.position, seg.keep = seg.end, true
	s.mu.Unlock()
	s.opts.Logger.Error("a file of the spool cannot be read; its records are not sent, and the file is kept under another name",
		"file", seg.name, "copy", quarantined(seg.name), "records", lost, "err", err)
	return nil
}

// errOfLog returns the attribute of a log line for an error. Without an error it is empty, and a
// handler omits it.
func errOfLog(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	return slog.Any("err", err)
}

// skip counts and logs damage, and keeps a copy of the damaged bytes.
func (s *Spool) skip(seg *segment, bad damage) {
	first := max(bad.first, s.position)
	if first >= bad.next {
		return // a failed write at the end, or records that are done
	}
	name := nameOfDamage(seg.header, bad.from)
	copied, err := s.copyOut(s.scan.file, name, bad)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept += copied
	s.account()
	s.stats.Damaged++
	s.stats.Lost += int64(bad.next - first)
	s.stats.Quarantined += copied
	if err != nil {
		seg.keep, name = true, quarantined(seg.name)
	}
	s.opts.Logger.Error("a file of the spool is damaged; the records in the damaged part are lost, and its bytes are kept in another file",
		"file", seg.name, "from", bad.from, "to", bad.to, "records", bad.next-first, "copy", name, errOfLog(err))
}

// Done marks all records up to and including a sequence number as done, so that they are not returned again.
// It removes files that are no longer needed.
func (s *Spool) Done(sequence uint64) error {
	if sequence+1 == s.returned {
		sequence = s.position - 1 // the records that were skipped after it are also done
	}
	s.mu.Lock()
	s.done = max(s.done, min(sequence+1, s.next))
	done := s.done
	if s.empty() {
		clear(s.last)
		if err := s.seal(); err != nil {
			s.opts.Logger.Warn("the spool could not close a file; its records are on disk", "err", err)
		}
	}
	finished := s.finished()
	if len(finished) > 0 {
		s.forget()
		s.account()
	}
	s.mu.Unlock()
	if len(finished) == 0 && !s.keeper.due(done, time.Now()) {
		return nil
	}
	err := s.keeper.save(done)
	errRemove := s.remove(finished)
	if err != nil && len(finished) > 0 {
		err = s.keeper.save(done) // the disk may have space now
	}
	return errors.Join(err, errRemove)
}

// forget removes the keys that no record has any more. Otherwise a spool that is never empty would
// keep every key for ever.
func (s *Spool) forget() {
	maps.DeleteFunc(s.last, func(_ string, at uint64) bool { return at < s.done })
}

// finished removes from the list the segments whose records are all done, and returns them.
func (s *Spool) finished() (out []*segment) {
	for len(s.segments) > 0 && s.segments[0] != s.active && s.segments[0].end <= s.done {
		out = append(out, s.segments[0])
		s.segments = s.segments[1:]
	}
	return out
}

// remove removes the files of segments, or sets them aside.
func (s *Spool) remove(finished []*segment) error {
	for _, seg := range finished {
		if s.reading == seg {
			if err := s.leave(); err != nil {
				s.opts.Logger.Warn("the spool could not close a file that it has read; no record is lost", "err", err)
			}
		}
		var err error
		if seg.keep {
			err = s.setSegmentAside(seg)
		} else {
			err = s.fs.Remove(seg.name)
		}
		if ignoreMissing(err) != nil {
			return fmt.Errorf("spool: remove %s: %w", seg.name, err)
		}
	}
	return nil
}
