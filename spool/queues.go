package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// queuePrefix is the prefix of the names of the directories of queues.
const queuePrefix = "queue-"

// Queues are several spools in one directory. Each has a name and a subdirectory. They share one limit
// of the total size. Records of one queue do not wait for those of another. Queues are safe for
// concurrent use, but each queue may have only one reader, like every Spool.
//
// The directory belongs to one process at a time. It is itself the queue without a name (the empty
// name), in which earlier versions kept all records.
type Queues struct {
	dir   string
	opts  Options
	bound *bound

	mu     sync.Mutex
	open   map[string]*Spool
	closed bool
}

// OpenQueues opens the queues in a directory. It makes the directory if it does not exist. The
// error wraps ErrLocked if another process uses the directory.
func OpenQueues(dir string, opts Options) (*Queues, error) {
	q := &Queues{dir: dir, opts: opts, bound: &bound{most: opts.MaxBytes}, open: make(map[string]*Spool)}
	if _, err := q.Queue(""); err != nil { // this queue locks the directory
		return nil, err
	}
	names, err := QueueNames(dir)
	for _, name := range names {
		if err == nil {
			_, err = q.Queue(name)
		}
	}
	if err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return q, nil
}

// QueueNames returns the names of the queues in a directory, in order. The queue without a name is not
// among them.
func QueueNames(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), queuePrefix); ok && e.IsDir() && name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// queueDirectory returns the directory of a queue.
func queueDirectory(dir, name string) (string, error) {
	if name == "" {
		return dir, nil
	}
	if name != filepath.Base(name) {
		return "", fmt.Errorf("spool: queue %q: %w", name, unix.EINVAL)
	}
	return filepath.Join(dir, queuePrefix+name), nil
}

// Queue returns the queue with the given name, and makes it if there is none. The error wraps
// ErrFull if the file system has no room for it. Queues.Close closes it.
func (q *Queues) Queue(name string) (*Spool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := q.open[name]; s != nil {
		return s, nil
	}
	if q.closed {
		return nil, fmt.Errorf("spool: queue %q: %w", name, ErrClosed)
	}
	at, err := queueDirectory(q.dir, name)
	if err != nil {
		return nil, err
	}
	files, err := OpenDirectory(at)
	if err != nil {
		return nil, withFull(err)
	}
	opts := q.opts
	opts.Logger = opts.Logger.With("directory", at)
	s, err := openWithin(files, opts, q.bound)
	if err != nil {
		return nil, withFull(err)
	}
	q.open[name] = s
	return s, nil
}

// ErrBehind is returned by Behind.
var ErrBehind = errors.New("earlier records with the same keys wait in another queue")

// Behind returns ErrBehind if the queue with the given name has records with one of the keys. Call
// it before you send a record of the queue without a name: if earlier records with the same keys were
// moved to another queue, this record must follow them there, to stay in order.
func (q *Queues) Behind(name string, keys ...string) error {
	if s := q.Find(name); s != nil && s.Holds(keys...) {
		return ErrBehind
	}
	return nil
}

// Find returns the queue with the given name, or nil if there is none.
func (q *Queues) Find(name string) *Spool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.open[name]
}

// Names returns the names of all queues, in order. The first is empty.
func (q *Queues) Names() (names []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for name := range q.open {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Empty reports whether no queue has a record.
func (q *Queues) Empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.open {
		if !s.Empty() {
			return false
		}
	}
	return true
}

// Stats returns the sum of the Stats of all queues.
func (q *Queues) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out Stats
	for _, s := range q.open {
		of := s.Stats()
		out.Records, out.Bytes, out.Segments = out.Records+of.Records, out.Bytes+of.Bytes, out.Segments+of.Segments
		out.Appended, out.Syncs = out.Appended+of.Appended, out.Syncs+of.Syncs
		out.Refused, out.Failed = out.Refused+of.Refused, out.Failed+of.Failed
		out.Kept, out.Torn, out.DamagedEnds = out.Kept+of.Kept, out.Torn+of.Torn, out.DamagedEnds+of.DamagedEnds
		out.Damaged, out.Lost, out.Quarantined = out.Damaged+of.Damaged, out.Lost+of.Lost, out.Quarantined+of.Quarantined
	}
	return out
}

// Limit returns how large the files of all queues together may become. That is MaxBytes, or less if
// the file system has less room while Headroom stays free.
func (q *Queues) Limit() int64 {
	q.mu.Lock()
	of := q.open[""]
	q.mu.Unlock()
	free, err := of.fs.Free()
	if err != nil {
		return q.opts.MaxBytes // the next write returns the error
	}
	q.bound.mu.Lock()
	defer q.bound.mu.Unlock()
	return min(q.opts.MaxBytes, q.bound.used+max(0, free-q.opts.Headroom))
}

// Close closes all queues.
func (q *Queues) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	var err error
	for name, s := range q.open {
		if name != "" {
			err = errors.Join(err, s.Close())
		}
	}
	if s := q.open[""]; s != nil { // this queue has the lock, so it is closed last
		err = errors.Join(err, s.Close())
	}
	return err
}

// LookQueues calls Look for all queues of a directory, one after the other. The names of files
// are relative to the directory.
func LookQueues(dir string, recordBytes int, take func(segment string, r Record) error) (*View, error) {
	all := new(View)
	names, err := QueueNames(dir)
	if err != nil {
		return all, err
	}
	for _, name := range append([]string{""}, names...) {
		at, err := queueDirectory(dir, name)
		if err != nil {
			return all, err
		}
		from, err := OpenExisting(at)
		if errors.Is(err, fs.ErrNotExist) && name != "" {
			continue // the queue was removed after the names were listed
		}
		if err != nil {
			return all, err
		}
		below := ""
		if name != "" {
			below = queuePrefix + name + string(filepath.Separator)
		}
		v, err := Look(from, recordBytes, func(segment string, r Record) error { return take(below+segment, r) })
		if v != nil {
			all.add(v, below)
		}
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

func (v *View) add(of *View, below string) {
	v.Unsaved = errors.Join(v.Unsaved, of.Unsaved)
	for _, seg := range of.Segments {
		seg.Name = below + seg.Name
		v.Segments = append(v.Segments, seg)
	}
	for _, kept := range of.Kept {
		kept.Name = below + kept.Name
		v.Kept = append(v.Kept, kept)
	}
}
