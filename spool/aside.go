package spool

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// quarantined returns the name under which a file is set aside.
func quarantined(name string) string { return quarantinePrefix + name }

const quarantinePrefix = "quarantine-"

// recordPrefix is the prefix of the names of the files that SetAside writes.
const recordPrefix = "record-"

// afterAside returns the sequence number after the last record in files of SetAside. If the file "done"
// is missing and there are no segments, the numbers continue there. If they began again, SetAside would
// replace these files.
func afterAside(names []string) (next uint64) {
	for _, name := range names {
		if number, is := strings.CutPrefix(name, quarantined(recordPrefix)); is {
			if n, err := strconv.ParseUint(number, 10, 64); err == nil {
				next = max(next, n+1)
			}
		}
	}
	return next
}

// nameOfDamage returns the name of the file for a damaged span of a segment. The name has a part of the
// salt, because the numbers of segments start again when an empty spool is opened.
func nameOfDamage(h header, from int64) string {
	return quarantined(fmt.Sprintf("%020d-%x-%d.bytes", h.number, h.salt[:4], from))
}

// SetAside writes the body of a record that cannot be sent to a file, so that people can examine it.
func (s *Spool) SetAside(r Record) error {
	name := quarantined(fmt.Sprintf("%s%020d", recordPrefix, r.Sequence))
	if err := ignoreMissing(s.fs.Remove(name)); err != nil {
		return fmt.Errorf("spool: set record %d aside: %w", r.Sequence, err)
	}
	file, err := s.fs.Create(name)
	if err == nil {
		_, err = file.Write(r.Body)
		err = errors.Join(err, file.Sync(), file.Close(), s.fs.Sync())
	}
	if err != nil {
		s.keepFileOf(r.Sequence)
		return fmt.Errorf("spool: set record %d aside: %w", r.Sequence, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept += int64(len(r.Body))
	s.account()
	return nil
}

// keepFileOf sets aside the whole segment of a record when it is done, because the record could not
// be written to a file of its own.
func (s *Spool) keepFileOf(sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		if seg.first <= sequence && sequence < seg.end {
			seg.keep = true
		}
	}
}

// setSegmentAside sets a segment aside by renaming its file, which needs no space on the disk.
func (s *Spool) setSegmentAside(seg *segment) error {
	if err := s.fs.Rename(seg.name, quarantined(seg.name)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept += seg.size
	seg.size = 0
	s.account()
	return nil
}

// copyOut copies a span of a segment into a separate file. After an error or a crash there is no file
// with only a part of the span. The caller adds the size to kept.
func (s *Spool) copyOut(from File, name string, bad damage) (int64, error) {
	if err := ignoreMissing(s.fs.Remove(name + temporary)); err != nil {
		return 0, err
	}
	to, err := s.fs.Create(name + temporary)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(to, io.NewSectionReader(from, bad.from, bad.to-bad.from))
	if err = errors.Join(err, to.Sync(), to.Close()); err == nil {
		err = s.fs.Rename(name+temporary, name)
	}
	if err == nil {
		err = s.fs.Sync()
	}
	if err != nil {
		return 0, errors.Join(err, ignoreMissing(s.fs.Remove(name+temporary)))
	}
	return n, nil
}

// countKept counts the bytes of the files that were set aside.
func (s *Spool) countKept() error {
	names, err := s.fs.List()
	if err != nil {
		return err
	}
	var bytes int64
	for _, name := range names {
		if !strings.HasPrefix(name, quarantinePrefix) {
			continue
		}
		file, errOf := s.fs.Open(name)
		if errOf == nil {
			var size int64
			size, errOf = file.Size()
			bytes, errOf = bytes+size, errors.Join(errOf, file.Close())
		}
		err = errors.Join(err, ignoreMissing(errOf)) // somebody may have deleted the file in the meantime
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = bytes
	s.account()
	return nil
}
