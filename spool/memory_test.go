package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/morphogenetic/oona/spool"
)

// memory is a directory in memory that knows which changes were synced. After a crash, it has these
// changes and any subset of the others.
type memory struct {
	mu     sync.Mutex
	names  map[string]*content // the files that the process sees
	stable map[string]*content // the files at the last sync of the directory
	locked bool
	free   int64
	fail   func(call, name string) error // nil: nothing fails
	calls  map[string]int
	// unsynced makes Sync of files do nothing and return no error. It is a mutant that the tests
	// must find.
	unsynced bool
	// unnamed makes Sync of the directory do nothing and return no error. It is another mutant.
	unnamed bool
}

// content is the content of a file: the synced bytes, and the writes after the last sync.
type content struct {
	data   []byte // the content with all writes
	synced []byte
	writes []span // not synced
	// dropped are writes that were not synced when a sync failed.
	dropped []span
}

type span struct{ from, to int }

// overwrite copies a span of data to dst. If dst does not reach up to the span, it fills dst with
// zeros.
func overwrite(dst, data []byte, w span) []byte {
	if need := w.to - len(dst); need > 0 {
		dst = append(dst, make([]byte, need)...)
	}
	copy(dst[w.from:w.to], data[w.from:w.to])
	return dst
}

func newMemory() *memory {
	return &memory{names: map[string]*content{}, stable: map[string]*content{}, free: 1 << 30, calls: map[string]int{}}
}

// called counts a call, and returns the error with which the call must fail, or nil.
func (m *memory) called(call, name string) error {
	m.calls[call]++
	if m.fail != nil {
		return m.fail(call, name)
	}
	return nil
}

// crash returns the directory after a crash. Any subset of the changes that were not synced remains,
// and of a write perhaps only the first part.
func (m *memory) crash(random *rand.Rand) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := newMemory()
	keep := func(name string, c *content) {
		data := bytes.Clone(c.synced)
		for _, w := range append(slices.Clone(c.dropped), c.writes...) {
			switch random.IntN(4) {
			case 0:
				continue
			case 1:
				w.to = w.from + random.IntN(w.to-w.from+1)
			}
			data = overwrite(data, c.data, w)
		}
		after.names[name] = &content{data: data, synced: bytes.Clone(data)}
	}
	for name, c := range m.stable {
		if m.names[name] != c && random.IntN(2) == 0 {
			continue // its removal has happened
		}
		keep(name, c)
	}
	for name, c := range m.names {
		if m.stable[name] != c && random.IntN(2) == 0 {
			keep(name, c)
		}
	}
	after.sync()
	return after
}

func (m *memory) sync() {
	m.stable = make(map[string]*content, len(m.names))
	for name, c := range m.names {
		m.stable[name] = c
	}
}

func (m *memory) List() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.names {
		names = append(names, name)
	}
	return names, m.called("list", "")
}

func (m *memory) Create(name string) (spool.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called("create", name); err != nil {
		return nil, err
	}
	if m.names[name] != nil {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrExist)
	}
	c := new(content)
	m.names[name] = c
	return &memoryFile{m, name, c}, nil
}

func (m *memory) Open(name string) (spool.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called("open", name); err != nil {
		return nil, err
	}
	c := m.names[name]
	if c == nil {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return &memoryFile{m, name, c}, nil
}

func (m *memory) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called("rename", from); err != nil {
		return err
	}
	c := m.names[from]
	if c == nil {
		return fmt.Errorf("%s: %w", from, fs.ErrNotExist)
	}
	m.names[to] = c
	delete(m.names, from)
	return nil
}

func (m *memory) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called("remove", name); err != nil {
		return err
	}
	if m.names[name] == nil {
		return fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	delete(m.names, name)
	return nil
}

func (m *memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called("syncdir", ""); err != nil || m.unnamed {
		return err
	}
	m.sync()
	return nil
}

func (m *memory) Free() (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.free, m.called("free", "")
}

func (m *memory) Lock() (spool.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked {
		return nil, spool.ErrLocked
	}
	m.locked = true
	return &lock{memoryFile{m, "LOCK", nil}}, nil
}

type lock struct{ memoryFile }

func (l *lock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.m.locked = false
	return nil
}

func (m *memory) Has(name string, file spool.File) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.called("has", name)
	if _, is := file.(*lock); is {
		return m.locked, err
	}
	opened, is := file.(*memoryFile)
	return is && m.names[name] == opened.c, err
}

type memoryFile struct {
	m    *memory
	name string
	c    *content
}

var errShort = errors.New("a part was written")

func (f *memoryFile) Write(p []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.m.called("write", f.name)
	n := len(p)
	if errors.Is(err, errShort) {
		n /= 2
	} else if err != nil {
		return 0, err
	}
	f.c.writes = append(f.c.writes, span{len(f.c.data), len(f.c.data) + n})
	f.c.data = append(f.c.data, p[:n]...)
	return n, err
}

func (f *memoryFile) ReadAt(p []byte, at int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.called("read", f.name); err != nil {
		return 0, err
	}
	if at >= int64(len(f.c.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.c.data[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memoryFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.called("sync", f.name); err != nil {
		// The kernel marks data that it could not write as clean, so a later sync does not write it.
		f.c.dropped, f.c.writes = append(f.c.dropped, f.c.writes...), nil
		return err
	}
	if f.m.unsynced {
		return nil
	}
	for _, w := range f.c.writes {
		f.c.synced = overwrite(f.c.synced, f.c.data, w)
	}
	f.c.writes = nil
	return nil
}

func (f *memoryFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.c.data)), f.m.called("size", f.name)
}

func (f *memoryFile) Close() error { return nil }
