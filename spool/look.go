package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// View describes the content of a directory.
type View struct {
	Done     uint64 // records with lower sequence numbers are done; 0 in a view of several queues
	Unsaved  error  // why Done is not known; then all records count as not done
	Segments []Segment
	Kept     []Kept
}

// Segment is a file of records.
type Segment struct {
	Name    string
	Bytes   int64
	Records int64 // records that are valid and not done
	Damaged int64 // damaged spans among the records that are not done
	Lost    int64 // records in these spans
	Torn    int64 // bytes after the last record, of a write that is in progress or was not finished
	// DamagedEnd says that the Torn bytes may also have been an acknowledged record.
	DamagedEnd bool
	Err        error // why the rest of the file cannot be read
}

// Kept is a file that was set aside. It has damaged bytes, or a record that could not be sent.
type Kept struct {
	Name   string
	Bytes  int64
	Record bool // the file is the body of a record
}

// OpenExisting returns a directory of the file system. The directory must exist.
func OpenExisting(dir string) (FileSystem, error) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s: %w", dir, unix.ENOTDIR)
	}
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return disk{dir}, nil
}

// IsSpool reports whether a process has opened the directory as a spool. It does not write.
func IsSpool(dir string) (bool, error) {
	_, err := os.Lstat(filepath.Join(dir, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("spool: %w", err)
	}
	return true, nil
}

// InUse reports whether a process has locked the directory. It does not write.
func InUse(dir string) (bool, error) {
	file, err := os.Open(filepath.Join(dir, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("spool: find out whether a process uses it: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	used := errors.Is(err, unix.EWOULDBLOCK)
	if used {
		err = nil
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return false, fmt.Errorf("spool: find out whether a process uses it: %w", err)
	}
	return used, nil
}

// Look reads a directory, and calls take for each record that is not done, in order, with the
// name of its segment. The record's body is valid until take returns. If take returns an
// error, Look stops and returns it. Look does not lock the directory and does not write, so
// another process may use the directory at the same time. Files that the process creates or
// removes in that time may then be missing in the view.
func Look(from FileSystem, recordBytes int, take func(segment string, r Record) error) (*View, error) {
	names, err := from.List()
	if err != nil {
		return nil, fmt.Errorf("spool: list the files: %w", err)
	}
	v := new(View)
	keeper := keeper{fs: from}
	var saved bool
	v.Done, saved, v.Unsaved = keeper.load()
	var headers []header
	for _, name := range names {
		if h, ok := parseName(name); ok {
			headers = append(headers, h)
		} else if strings.HasPrefix(name, quarantinePrefix) {
			v.keep(from, name)
		}
	}
	slices.SortFunc(v.Kept, func(a, b Kept) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(headers, func(a, b header) int { return strings.Compare(a.name(), b.name()) })
	position, begin := v.Done, v.Done
	if !saved {
		begin = afterAside(names)
	}
	for i, h := range headers {
		limit := lastSegment
		if i+1 < len(headers) {
			limit = max(headers[i+1].first, h.first)
		}
		seg := Segment{Name: h.name()}
		if i == 0 && v.Unsaved == nil {
			seg.miss(&begin, h.first) // older files are missing
		}
		position = max(position, h.first)
		if err := seg.look(from, h, &position, limit, recordBytes, take); err != nil {
			return v, fmt.Errorf("spool: read %s: %w", seg.Name, err)
		}
		if !errors.Is(seg.Err, fs.ErrNotExist) { // a missing file was removed after the listing
			v.Segments = append(v.Segments, seg)
		}
	}
	return v, nil
}

func (v *View) keep(from FileSystem, name string) {
	kept := Kept{Name: name, Bytes: -1, Record: strings.HasPrefix(name, quarantined(recordPrefix))}
	if file, err := from.Open(name); err == nil {
		if size, err := file.Size(); err == nil {
			kept.Bytes = size
		}
		_ = file.Close() // nothing was written
	}
	v.Kept = append(v.Kept, kept)
}

// look reads the records of a segment from a position on. It returns only errors of take, and puts
// other errors into seg.Err.
func (seg *Segment) look(from FileSystem, h header, position *uint64, limit uint64, recordBytes int, take func(segment string, r Record) error) error {
	file, err := from.Open(seg.Name)
	if err != nil {
		seg.Err = err
		return nil
	}
	defer file.Close() // nothing was written
	if seg.Bytes, seg.Err = file.Size(); seg.Err != nil {
		return nil
	}
	scan := newScanner(file, h, recordBytes)
	for {
		r, bad, err := scan.read(limit)
		switch {
		case errors.Is(err, io.EOF):
			if limit != lastSegment {
				seg.miss(position, limit)
			}
			seg.Torn = max(0, seg.Bytes-scan.at)
			if limit == lastSegment && seg.Torn > 0 {
				unfinished, err := scan.unfinished(seg.Bytes)
				seg.DamagedEnd, seg.Err = err == nil && !unfinished, err
			}
			return nil
		case err != nil:
			seg.Err = err
			return nil
		case bad != nil:
			seg.miss(position, bad.next)
		case r.Sequence >= *position:
			*position = r.Sequence + 1
			seg.Records++
			if err := take(seg.Name, r); err != nil {
				return err
			}
		}
	}
}

// miss counts the records from the position to next as missing.
func (seg *Segment) miss(position *uint64, next uint64) {
	if *position < next {
		seg.Damaged++
		seg.Lost += int64(next - *position)
		*position = next
	}
}

// ReadAside returns a record that was set aside.
func ReadAside(from FileSystem, kept Kept) (Record, error) {
	var r Record
	var err error
	if r.Sequence, err = strconv.ParseUint(strings.TrimPrefix(filepath.Base(kept.Name), quarantined(recordPrefix)), 10, 64); err != nil {
		return r, fmt.Errorf("spool: the name of the file %s does not end with the number of a record: %w", kept.Name, err)
	}
	file, err := from.Open(kept.Name)
	if err == nil {
		r.Body, err = io.ReadAll(io.NewSectionReader(file, 0, kept.Bytes))
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return r, fmt.Errorf("spool: read %s: %w", kept.Name, err)
	}
	return r, nil
}
