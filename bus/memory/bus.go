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

// Bus holds topics and groups. It is safe for concurrent use.
type Bus struct {
	now func() time.Time

	mu     sync.Mutex
	topics map[string]*topic
	groups map[groupKey]*group
	refuse func(topic string, partition int32) error // nil: nothing is refused
}

// Options of a Bus.
type Options struct {
	Now func() time.Time // nil: time.Now
}

// New returns a bus without topics.
func New(opts Options) *Bus {
	b := &Bus{now: opts.Now, topics: make(map[string]*topic), groups: make(map[groupKey]*group)}
	if b.now == nil {
		b.now = time.Now
	}
	return b
}

// defaultPartitions is of a topic whose spec leaves their number open.
const defaultPartitions = 1

type topic struct {
	spec       oona.TopicSpec
	partitions []*log
	unkeyed    int // messages without a key or a partition, which take turns
}

// log is that of a partition. All of it is under Bus.mu.
type log struct {
	start   int64
	records []record
	frozen  bool
	waiting []*part       // to be appended once it is not frozen
	changed chan struct{} // closed, and replaced, when there may be something new to read
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

// CreateTopics makes topics. It fails for one that exists.
func (b *Bus) CreateTopics(specs ...oona.TopicSpec) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, spec := range specs {
		if b.topics[spec.Name] != nil {
			return fmt.Errorf("make topic %s: it exists", spec.Name)
		}
		if spec.Partitions == 0 {
			spec.Partitions = defaultPartitions
		}
		t := &topic{spec: spec}
		for range spec.Partitions {
			t.partitions = append(t.partitions, &log{changed: make(chan struct{})})
		}
		b.topics[spec.Name] = t
	}
	return nil
}

// Ends returns the offset after the last record of each partition of a topic.
func (b *Bus) Ends(topic string) ([]int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, err := b.topic(topic)
	if err != nil {
		return nil, err
	}
	ends := make([]int64, len(t.partitions))
	for i, p := range t.partitions {
		ends[i] = p.end()
	}
	return ends, nil
}

// Committed returns a group's commit of a partition; its Offset is bus.NoOffset
// where there is none.
func (b *Bus) Committed(group, topic string, partition int32) bus.Commit {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.group(group, topic).committed(partition)
}

// topic is called with mu held, as are the other methods in lower case.
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

// read returns the record at an offset, once there is one. If the log does not reach back
// to the offset, or ends before it, it returns the oldest record. It returns false
// if ctx ends first.
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

// firstAt returns the offset of the first record whose time is at or after t, or
// the end of the log.
func (p *log) firstAt(t time.Time) int64 {
	at := oona.MicrosOf(t)
	if i := slices.IndexFunc(p.records, func(r record) bool { return r.appended >= at }); i >= 0 {
		return p.start + int64(i)
	}
	return p.end()
}
