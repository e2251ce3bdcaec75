package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/morphogenetic/oona/internal/outage"
)

// Options configure a Spool. All sizes are in bytes.
type Options struct {
	MaxBytes int64 // maximum size of all files; when it is reached, Append returns ErrFull
	// SegmentBytes is the size at which a segment ends and the next one begins. The space
	// of a segment becomes free when all its records are done, so SegmentBytes should be a
	// small part of MaxBytes.
	SegmentBytes int64
	RecordBytes  int   // maximum size of a record
	Headroom     int64 // space that must stay free in the file system
	// Keys returns the keys of a record, for Holds. It is called for each record when a
	// spool is opened.
	Keys   func(body []byte) []string
	Logger *slog.Logger
}

// Spool is a queue of records on disk. It is safe for concurrent use, except that only one
// goroutine may call Next and Done.
type Spool struct {
	fs   FileSystem
	opts Options
	lock File

	mu       sync.Mutex
	segments []*segment // ordered by number
	active   *segment   // the last segment, if it may be written to
	flight   int        // number of records that are being written
	number   uint64     // number of the newest segment; only the writer uses it
	queue    []*appending
	waiting  int64             // bytes of the queue and of the batch that is being written
	bound    *bound            // may be shared with other spools
	kept     int64             // bytes of the files that were set aside
	held     int64             // bytes that the bound counts for this spool
	heldKept int64             // the part of held in files that were set aside
	next     uint64            // sequence number of the next record; all below are on disk
	done     uint64            // Done was called for all records below
	last     map[string]uint64 // sequence number of the newest record of each key; at most mostKeys
	others   uint64            // records with keys that are not in last have smaller numbers
	failing  outage.Outage     // of the writer
	stats    Stats
	closed   bool
	wake     chan struct{} // closed and replaced when there is something for the writer
	arrived  chan struct{} // closed and replaced when there is something for the reader
	written  chan struct{} // closed when the writer has ended

	// Only the reader uses the fields below.
	reading  *segment
	scan     *scanner
	position uint64 // sequence number after the last record that Next has returned or skipped
	returned uint64 // sequence number after the last record that Next has returned
	failures int    // number of failed reads since the last successful one
	keeper   keeper
}

// segment is a file of records.
type segment struct {
	header
	name string
	file File   // nil unless the segment is active
	size int64  // size of the file
	end  uint64 // sequence number after its last valid record
	// keep means that the file is set aside when its records are done, because a part of it must be
	// kept and could not be copied.
	keep bool
}

// Stats describes the content of a spool, and has counters since it was opened.
type Stats struct {
	Records     int64 // records in the spool that are not done
	Bytes       int64 // size of all segments and all files that were set aside
	Kept        int64 // size of the files that were set aside
	Segments    int
	Appended    int64 // records that were written
	Syncs       int64
	Refused     int64 // records that were refused because the spool was full
	Failed      int64 // records that could not be written
	Damaged     int64 // damaged parts of files that were skipped
	Lost        int64 // records that were lost in damaged parts and missing files
	Quarantined int64 // bytes that were copied to quarantine
	// Torn is the number of bytes after the last valid record that were found when the spool was opened.
	Torn int64
	// DamagedEnds is the number of files whose damaged end may have been an acknowledged record, and was
	// copied to quarantine.
	DamagedEnds int64
}

// Open opens a spool. It reads all of its files once. The error wraps ErrLocked if another
// process uses the directory.
func Open(fs FileSystem, opts Options) (*Spool, error) {
	return openWithin(fs, opts, &bound{most: opts.MaxBytes})
}

// openWithin opens a spool that shares a bound with others.
func openWithin(fs FileSystem, opts Options, of *bound) (*Spool, error) {
	lock, err := fs.Lock()
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s := &Spool{
		fs: fs, opts: opts, lock: lock, last: make(map[string]uint64), bound: of,
		wake: make(chan struct{}), arrived: make(chan struct{}), written: make(chan struct{}),
	}
	s.keeper = keeper{fs: fs}
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("spool: open: %w", err), lock.Close())
	}
	of.join(s)
	go s.write()
	return s, nil
}

// mostKeys is the maximum number of keys that a spool distinguishes, because clients choose the keys,
// and each takes memory. While records with more keys are in the spool, it seems to hold every key.
const mostKeys = 1 << 16

// note records that a record has a key. The caller must hold mu.
func (s *Spool) note(key string, sequence uint64) {
	at, known := s.last[key]
	if known || len(s.last) < mostKeys {
		s.last[key] = max(at, sequence)
		return
	}
	s.others = max(s.others, sequence+1)
}

// Holds reports whether the spool has a record with one of the keys. A record that is appended later
// is returned by Next after it. If there are more than mostKeys keys, Holds may also return true for a
// key without a record.
func (s *Spool) Holds(keys ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.empty() {
		return false
	}
	for _, key := range keys {
		at, known := s.last[key]
		if known && at >= s.done || !known && s.others > s.done {
			return true
		}
	}
	return false
}

// Empty reports whether the spool has no record.
func (s *Spool) Empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.empty()
}

func (s *Spool) empty() bool { return s.done == s.next && s.flight == 0 && len(s.queue) == 0 }

// Stats returns the Stats of the spool.
func (s *Spool) Stats() Stats {
	s.bound.recount(statsRecount)
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.Records, out.Segments = int64(s.next-s.done), len(s.segments)
	out.Bytes, out.Kept = s.kept, s.kept
	for _, seg := range s.segments {
		out.Bytes += seg.size
	}
	return out
}

// appending is a record that waits for the writer.
type appending struct {
	body   []byte
	result chan error
}

// Append appends a record, and returns when it is on disk. If it returns an error, the record
// is not in the spool. The error wraps ErrFull or ErrTooLarge, or says why the record could
// not be written. If ctx ends before the record is being written, Append removes it from the
// queue.
func (s *Spool) Append(ctx context.Context, keys []string, body []byte) error {
	a := &appending{body: body, result: make(chan error, 1)}
	err := s.enqueue(a, keys, false)
	if errors.Is(err, ErrFull) && s.bound.recount(fullRecount) {
		err = s.enqueue(a, keys, false)
	}
	if err != nil {
		s.countRefused(err)
		return err
	}
	return s.wait(ctx, a)
}

// AppendMoved is like Append, for a record that is moved from another queue with the same bound.
// Afterwards, the caller marks the record as done in the other queue. The bound does not apply, because
// there are not more records than before. Until the old file of the record is removed, both queues
// together may exceed the bound by that file.
func (s *Spool) AppendMoved(ctx context.Context, keys []string, body []byte) error {
	a := &appending{body: body, result: make(chan error, 1)}
	if err := s.enqueue(a, keys, true); err != nil {
		return err
	}
	return s.wait(ctx, a)
}

// How often the files that were set aside are counted again when the spool is full, and for Stats.
const (
	fullRecount  = time.Second
	statsRecount = 10 * time.Second
)

func (s *Spool) countRefused(err error) {
	if errors.Is(err, ErrFull) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stats.Refused++
	}
}

// wait waits until a record is on disk.
func (s *Spool) wait(ctx context.Context, a *appending) error {
	select {
	case err := <-a.result:
		return err
	case <-ctx.Done():
	}
	if s.withdraw(a) {
		return fmt.Errorf("spool: %w", context.Cause(ctx))
	}
	return <-a.result
}

// enqueue passes a record to the writer. A record that is moved may exceed the bound.
func (s *Spool) enqueue(a *appending, keys []string, moved bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return fmt.Errorf("spool: %w", ErrClosed)
	case len(a.body) > s.opts.RecordBytes:
		return fmt.Errorf("spool: %w: it has %d bytes, and the limit is %d", ErrTooLarge, len(a.body), s.opts.RecordBytes)
	}
	need := int64(frameBytes + len(a.body))
	if moved {
		s.bound.add(need, 0)
	} else if err := s.bound.take(need); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.waiting, s.held = s.waiting+need, s.held+need
	s.queue = append(s.queue, a)
	// This assumes that all earlier records will be written. If one is not, this record gets a
	// smaller number, and Holds reports its keys longer than necessary.
	for _, key := range keys {
		s.note(key, s.next+uint64(s.flight+len(s.queue)-1))
	}
	close(s.wake)
	s.wake = make(chan struct{})
	return nil
}

// withdraw removes a waiting record from the queue. It returns false if the record is being
// written already.
func (s *Spool) withdraw(a *appending) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.queue {
		if other == a {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			s.waiting -= int64(frameBytes + len(a.body))
			s.account()
			return true
		}
	}
	return false
}

// Close refuses further records, waits until the waiting ones are on disk, and unlocks the
// directory.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.wake)
	s.wake = make(chan struct{})
	s.mu.Unlock()
	<-s.written
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.keeper.save(s.done)
	if s.scan != nil {
		err = errors.Join(err, s.scan.file.Close())
		s.scan = nil
	}
	close(s.arrived)
	s.arrived = make(chan struct{})
	s.bound.leave(s)
	return errors.Join(err, s.lock.Close())
}
