package spool

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// recover reads the files in the directory and sets the state of the spool. The caller must have locked the directory.
func (s *Spool) recover() error {
	names, err := s.fs.List()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, temporary) {
			if err := s.fs.Remove(name); err != nil {
				return err
			}
			continue
		}
		if h, ok := parseName(name); ok {
			s.segments = append(s.segments, &segment{header: h, name: name})
		}
	}
	slices.SortFunc(s.segments, func(a, b *segment) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	var known bool
	if s.done, known, err = s.keeper.load(); err != nil {
		s.opts.Logger.Warn("the spool does not know which of its records were sent; some may be sent again", "file", doneName, "err", err)
	}
	begin := s.done // where the oldest file must begin
	if !known {
		begin = afterAside(names)
	}
	if len(s.segments) == 0 {
		s.done = begin
	} else if s.done < s.segments[0].first {
		s.beginAt(s.segments[0].first, begin, err == nil)
	}
	if n := len(s.segments); n > 0 {
		s.number = s.segments[n-1].number
	}
	s.next = s.done
	for i, seg := range s.segments {
		limit := lastSegment
		if i+1 < len(s.segments) {
			limit = s.segments[i+1].first
		}
		if err := s.examine(seg, limit); err != nil {
			return err
		}
		s.next = max(s.next, seg.end)
	}
	s.position, s.returned = s.done, s.done
	finished := s.finished()
	if err := s.countKept(); err != nil {
		s.opts.Logger.Warn("the spool could not find out how large its files quarantine-... are, so its size may be wrong", "err", err)
	}
	if s.kept > 0 {
		s.opts.Logger.Warn("the spool has files quarantine-..., with damaged bytes or with records that could not be sent; they count towards its size, so examine them, and delete them or move them to another place", "bytes", s.kept)
	}
	s.mu.Lock()
	s.account()
	s.mu.Unlock()
	return s.remove(finished)
}

// beginAt sets the sequence number of the first record, if it is greater than the number in the file
// "done". The spool removes a file only after it has saved a number above the last record of that file.
// So if "done" is not damaged, and the oldest file begins later than it must, something else has removed
// files.
func (s *Spool) beginAt(first, begin uint64, certain bool) {
	if certain && begin < first {
		s.stats.Damaged++
		s.stats.Lost += int64(first - begin)
		s.opts.Logger.Error("the oldest files of the spool are missing, although it has not deleted them; their records are lost", "records", first-begin)
	}
	s.done = first
}

// examine finds the end of a segment and the keys of its records. limit is the first sequence number of
// the next segment. If the last segment cannot be read, examine returns an error, because its end is
// not known, and new records could get sequence numbers that records in it already have.
func (s *Spool) examine(seg *segment, limit uint64) (err error) {
	for range readAttempts {
		if err = s.examineOnce(seg, limit); err == nil {
			return nil
		}
	}
	if limit == lastSegment {
		return fmt.Errorf("the newest file of records, %s, cannot be read; if this happens again, move the file to another place and keep it: %w", seg.name, err)
	}
	// The reader tries again, and sets the segment aside if it cannot be read.
	s.opts.Logger.Error("the spool could not read a file of records; it tries again when the records are due to be sent", "file", seg.name, "err", err)
	return nil
}

// lastSegment is the limit of the last segment's sequence numbers.
const lastSegment = ^uint64(0)

func (s *Spool) examineOnce(seg *segment, limit uint64) error {
	seg.end = seg.first
	if limit != lastSegment {
		seg.end = max(limit, seg.first)
	}
	file, err := s.fs.Open(seg.name)
	if err != nil {
		return err
	}
	seg.size, err = file.Size()
	scan := newScanner(file, seg.header, mostRecord)
	for err == nil {
		var r Record
		var bad *damage
		if r, bad, err = scan.read(limit); err == nil && bad == nil {
			seg.end = max(seg.end, r.Sequence+1)
			s.noteKeys(r)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil && limit == lastSegment && seg.size > scan.at {
		s.cutEnd(seg, scan)
	}
	return errors.Join(err, file.Close())
}

// cutEnd counts and logs the bytes after the last record of the last segment. If they may have been
// an acknowledged record, it keeps a copy.
func (s *Spool) cutEnd(seg *segment, scan *scanner) {
	torn := seg.size - scan.at
	s.stats.Torn += torn
	unfinished, err := scan.unfinished(seg.size)
	if unfinished {
		s.opts.Logger.Warn("the newest file of the spool ends with an unfinished write; no client got an acknowledgement for it, so it is ignored", "file", seg.name, "bytes", torn)
		return
	}
	name := nameOfDamage(seg.header, scan.at)
	if there, errOf := s.fs.Open(name); errOf == nil {
		// It was counted when the spool was opened earlier.
		s.opts.Logger.Warn("the newest file of the spool has a damaged end; its bytes were copied at an earlier start", "file", seg.name, "bytes", torn, "copy", name, errOfLog(there.Close()))
		return
	}
	copied, errOf := s.copyOut(scan.file, name, damage{from: scan.at, to: seg.size})
	s.stats.DamagedEnds++
	s.stats.Quarantined += copied
	if errOf != nil {
		seg.keep, name = true, quarantined(seg.name)
	}
	s.opts.Logger.Error("the newest file of the spool has a damaged end, which may have been an acknowledged record; it is lost, and its bytes are kept in another file",
		"file", seg.name, "from", scan.at, "bytes", torn, "copy", name, errOfLog(errors.Join(err, errOf)))
}

// noteKeys records that a record is the newest of its keys.
func (s *Spool) noteKeys(r Record) {
	if r.Sequence < s.done {
		return
	}
	for _, key := range s.opts.Keys(r.Body) {
		s.note(key, r.Sequence)
	}
}
