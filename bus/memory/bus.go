package memory

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// Bus is a bus.Bus. It is safe for concurrent use.
type Bus struct {
	mu     sync.Mutex
	topics map[string]*topic
	groups map[string]*group
	// What the test refuses; nil: nothing.
	refuse, refuseCommit func(topic string, partition int32) error
}

// New returns a bus without topics.
func New() *Bus {
	return &Bus{topics: make(map[string]*topic), groups: make(map[string]*group)}
}

type topic struct {
	name       string
	compacted  bool
	appendTime bool
	maxBytes   int // of a message
	retention  bus.Retention
	partitions []*log
	unkeyed    int // counts messages without a key and a partition
}

// grow gives the topic n partitions.
func (t *topic) grow(n int32) {
	for len(t.partitions) < int(n) {
		t.partitions = append(t.partitions, &log{changed: make(chan struct{})})
	}
}

// log is the log of a partition. It is guarded by Bus.mu.
type log struct {
	start   int64
	records []record
	frozen  bool
	waiting []*part       // to be appended by Thaw
	changed chan struct{} // closed and replaced when there may be something new to read
}

type record struct {
	offset   int64
	appended oona.Micros
	key      []byte
	payload  []byte
	headers  map[string]string
}

func (p *log) end() int64 { return p.start + int64(len(p.records)) }

func (p *log) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// topic returns a topic. Like all unexported methods of Bus, it is called with mu held.
func (b *Bus) topic(name string) (*topic, error) {
	if t := b.topics[name]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("%w: %s", bus.ErrNoTopic, name)
}

func (b *Bus) partition(topic string, number int32) (*log, error) {
	t, err := b.topic(topic)
	if err != nil {
		return nil, err
	}
	if number < 0 || int(number) >= len(t.partitions) {
		return nil, fmt.Errorf("%s has no partition %d", topic, number)
	}
	return t.partitions[number], nil
}

// read waits for the record at an offset and returns it. If the log begins after the
// offset, or ends before it, read returns the oldest record. It returns false if ctx ends
// first.
func (b *Bus) read(ctx context.Context, p *log, offset int64) (record, bool) {
	for {
		b.mu.Lock()
		if offset < p.start || offset > p.end() {
			offset = p.start
		}
		if !p.frozen && offset < p.end() && ctx.Err() == nil {
			r := p.records[offset-p.start]
			b.mu.Unlock()
			return r, true
		}
		changed := p.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return record{}, false
		}
	}
}

// firstAt returns the offset of the first record whose time is not before t, or the end
// of the log.
func (p *log) firstAt(t time.Time) int64 {
	at := oona.MicrosOf(t)
	if i := slices.IndexFunc(p.records, func(r record) bool { return r.appended >= at }); i >= 0 {
		return p.start + int64(i)
	}
	return p.end()
}
