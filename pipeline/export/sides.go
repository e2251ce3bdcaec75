package export

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Sides reads the side topics. It is a part of bus.Admin.
type Sides interface {
	Extents(ctx context.Context, topics ...string) (map[string][]bus.Extent, error)
	Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error
}

// Limits of reading the side topics for one request. Records and bytes are of each topic.
const (
	sidesSince    = time.Hour
	sidesTime     = 5 * time.Second
	sidesRecords  = 4096
	sidesBytes    = 16 << 20
	sidesExamples = 3   // number of examples of each topic and reason
	sidesReasons  = 64  // maximum number of reasons of each topic
	sidesRuns     = 256 // whose names are kept, of each topic
	firstBlock    = 8   // records that are read first; they may be of 2 MiB each
)

// anyFrame has limits above those of ingest.
var anyFrame = oona.FrameLimits{Seeds: 1 << 20, Metrics: 1 << 12, Tensors: 1 << 12}

// asideGroup describes the records that were put aside for one reason.
type asideGroup struct {
	Topic    string         `json:"topic"`
	Reason   string         `json:"reason"`
	Records  int            `json:"records"`
	First    time.Time      `json:"first"` // when the records were appended to the log
	Last     time.Time      `json:"last"`
	Do       string         `json:"do"`
	Examples []asideExample `json:"examples"` // the newest
}

// asideExample is one record. What is not known of it is left out.
type asideExample struct {
	Layer      oona.LayerID    `json:"layer,omitempty"`
	Producer   oona.ProducerID `json:"producer,omitempty"`
	Epoch      oona.Micros     `json:"producer_epoch,omitempty"`
	Sequence   *int64          `json:"sequence,omitempty"`
	ObservedAt *time.Time      `json:"observed_at,omitempty"`
	AppendedAt time.Time       `json:"appended_at"`
	Partition  int32           `json:"partition"` // partition of the side topic
	Offset     int64           `json:"offset"`    // offset in the side topic
	Origin     string          `json:"origin,omitempty"`
	Detail     string          `json:"detail"`
}

// sides has the result of reading the side topics for a run.
type sides struct {
	groups   []asideGroup
	runs     []oona.RunID // runs that have records there
	unknown  int          // records of which the run is not known
	complete bool         // everything since was read
	problems []string     // topics that could not be read
}

// sideReader reads the side topics.
type sideReader struct {
	from   Sides
	topics oona.Topics
	// absent is when it was found that there are no dead letters of the raw topic, in
	// nanoseconds. Their topic need not exist, and it takes seconds to know that.
	absent atomic.Int64
}

// absentFor is how long a topic that need not exist is not looked for again.
const absentFor = time.Minute

func (r *sideReader) names(now time.Time) []string {
	names := r.topics.Sides()
	if at := r.absent.Load(); at != 0 && now.Sub(time.Unix(0, at)) < absentFor {
		names = slices.DeleteFunc(names, func(name string) bool { return name == r.topics.SeedRawDead })
	}
	return names
}

// read reads the last hour of the side topics, the newest records first, within limits. It
// reads the topics at the same time, so that many records of one do not hide another.
func (r *sideReader) read(ctx context.Context, run oona.RunID, now time.Time) sides {
	ctx, cancel := context.WithTimeout(ctx, sidesTime)
	defer cancel()
	names := r.names(now)
	read := make([]*side, len(names))
	var reading sync.WaitGroup
	for i, topic := range names {
		read[i] = &side{from: r.from, topic: topic, run: run, since: oona.MicrosOf(now.Add(-sidesSince)), complete: true, decoder: avro.FrameDecoder{Limits: anyFrame}}
		reading.Go(func() {
			err := read[i].read(ctx)
			if topic == r.topics.SeedRawDead && errors.Is(err, bus.ErrNoTopic) {
				r.absent.Store(now.UnixNano())
				return
			}
			if read[i].failed = err; err != nil {
				read[i].complete = false
			}
		})
	}
	reading.Wait()
	all := sides{complete: true}
	for _, s := range read {
		for _, g := range s.groups {
			slices.SortFunc(g.Examples, newestFirst)
			all.groups = append(all.groups, *g)
		}
		all.runs = append(all.runs, s.runs...)
		all.unknown += s.unknown
		all.complete = all.complete && s.complete
		if s.failed != nil {
			all.problems = append(all.problems, fmt.Sprintf("%s could not be read: %v", s.topic, s.failed))
		}
	}
	slices.SortStableFunc(all.groups, func(a, b asideGroup) int { return cmp.Compare(b.Records, a.Records) })
	slices.Sort(all.runs)
	all.runs = slices.Compact(all.runs)
	return all
}

func newestFirst(a, b asideExample) int {
	return cmp.Or(b.AppendedAt.Compare(a.AppendedAt), cmp.Compare(b.Offset, a.Offset))
}

// side is the part of sides from one topic.
type side struct {
	from  Sides
	topic string
	run   oona.RunID
	since oona.Micros

	decoder  avro.FrameDecoder
	frame    oona.Frame
	records  int
	bytes    int
	seen     map[string]struct{} // origins: a writer may repeat a record
	groups   []*asideGroup
	runs     []oona.RunID
	unknown  int
	complete bool
	failed   error
}

var errEnough = errors.New("enough was read")

// read reads the partitions of the topic. Each has an equal part of the limits.
func (s *side) read(ctx context.Context) error {
	held, err := s.from.Extents(ctx, s.topic)
	if err != nil {
		return err
	}
	s.seen = make(map[string]struct{})
	for p, e := range held[s.topic] {
		part := len(held[s.topic]) - p
		err := s.partition(ctx, int32(p), e, s.records+(sidesRecords-s.records)/part, s.bytes+(sidesBytes-s.bytes)/part)
		switch {
		case errors.Is(err, errEnough) || errors.Is(err, context.DeadlineExceeded):
			s.complete = false
		case err != nil:
			return err
		}
	}
	return nil
}

// partition reads blocks backward from the end, until one has no record of the last hour. A
// block is read forward and in whole, so that what is left out is older than what was read.
func (s *side) partition(ctx context.Context, number int32, e bus.Extent, records, bytes int) error {
	for end, size := e.End, int64(firstBlock); end > e.Start; {
		if s.records >= records || s.bytes >= bytes {
			return errEnough
		}
		block := bus.Range{Partition: number, From: max(e.Start, end-min(size, int64(records-s.records))), End: end}
		recent, records0, bytes0 := false, s.records, s.bytes
		err := s.from.Read(ctx, s.topic, block, func(msg *message.Message) error {
			// A trainer's record in a side topic may have large headers.
			s.records, s.bytes = s.records+1, s.bytes+bus.SizeOf(msg)
			at, err := bus.PositionOf(msg)
			if err == nil && at.Appended >= s.since {
				recent = true
				s.take(msg, at)
			}
			return err
		})
		if err != nil {
			return err
		}
		if !recent && s.records > records0 {
			return nil
		}
		end = block.From
		size = min(2*size, 1024)
		if n := s.records - records0; n > 0 { // no more than fits, if these records are typical
			size = max(1, min(size, int64(bytes-s.bytes)*int64(n)/int64(1+s.bytes-bytes0)))
		}
	}
	return nil
}

// take counts a record. A record is of a run by its key, or else by its frame.
func (s *side) take(msg *message.Message, at bus.Position) {
	m := msg.Metadata
	origin := fmt.Sprintf("%s/%s/%s/%s", m.Get(oona.HeaderErrorTopic), m.Get(oona.HeaderErrorPartition), m.Get(oona.HeaderErrorIncarnation), m.Get(oona.HeaderErrorOffset))
	if _, again := s.seen[origin]; again && m.Get(oona.HeaderErrorOffset) != "" {
		return
	}
	s.seen[origin] = struct{}{}
	run, layer, err := oona.ParseKey(at.Key)
	var example asideExample
	if err != nil {
		if run, example = s.look(msg.Payload); run == "" {
			s.unknown++
			return
		}
	}
	if len(s.runs) < sidesRuns && !slices.Contains(s.runs, run) {
		s.runs = append(s.runs, run)
	}
	g := s.group(m.Get(oona.HeaderErrorException), run == s.run)
	if g == nil {
		return
	}
	appended := at.Appended.Time()
	g.Records++
	if g.First.IsZero() || appended.Before(g.First) {
		g.First = appended
	}
	if appended.After(g.Last) {
		g.Last = appended
	}
	oldest := 0
	for i := range g.Examples {
		if newestFirst(g.Examples[i], g.Examples[oldest]) > 0 {
			oldest = i
		}
	}
	if len(g.Examples) == sidesExamples && newestFirst(asideExample{AppendedAt: appended, Offset: at.Offset}, g.Examples[oldest]) > 0 {
		return
	}
	if err == nil {
		_, example = s.look(msg.Payload)
		example.Layer = layer
	}
	example.AppendedAt, example.Partition, example.Offset, example.Detail = appended, at.Partition, at.Offset, m.Get(oona.HeaderErrorMessage)
	if m.Get(oona.HeaderErrorOffset) != "" {
		example.Origin = fmt.Sprintf("%s/%s/%s", m.Get(oona.HeaderErrorTopic), m.Get(oona.HeaderErrorPartition), m.Get(oona.HeaderErrorOffset))
	}
	if len(g.Examples) < sidesExamples {
		g.Examples = append(g.Examples, example)
	} else {
		g.Examples[oldest] = example
	}
}

// group returns the group of a reason, or nil if the record is not of the run that is asked for.
func (s *side) group(reason string, ours bool) *asideGroup {
	if !ours {
		return nil
	}
	for _, g := range s.groups {
		if g.Reason == reason {
			return g
		}
	}
	if len(s.groups) == sidesReasons {
		return nil
	}
	g := &asideGroup{Topic: s.topic, Reason: reason, Do: whatToDo(reason)}
	s.groups = append(s.groups, g)
	return g
}

// look returns the run of the first frame of a record, and what identifies it.
func (s *side) look(value []byte) (oona.RunID, asideExample) {
	text := bytes.TrimLeft(value, " \t\r\n[")
	if len(text) > 0 && text[0] == '{' {
		return lookJSON(text)
	}
	if _, err := s.decoder.Decode(value, &s.frame); err != nil {
		return "", asideExample{}
	}
	f := &s.frame
	observed, sequence := f.ObservedAt.Time(), f.Sequence
	return f.Run, asideExample{Layer: f.Layer, Producer: f.Producer, Epoch: f.Epoch, Sequence: &sequence, ObservedAt: &observed}
}

func lookJSON(text []byte) (oona.RunID, asideExample) {
	var f struct {
		Run        oona.RunID      `json:"run_id"`
		Layer      oona.LayerID    `json:"layer_id"`
		Producer   oona.ProducerID `json:"producer_id"`
		Epoch      json.Number     `json:"producer_epoch"`
		Sequence   json.Number     `json:"sequence"`
		ObservedAt json.Number     `json:"observed_at"`
	}
	if json.NewDecoder(bytes.NewReader(text)).Decode(&f) != nil {
		return "", asideExample{}
	}
	e := asideExample{Layer: f.Layer, Producer: f.Producer}
	if n, err := f.Epoch.Int64(); err == nil {
		e.Epoch = oona.Micros(n)
	}
	if n, err := f.Sequence.Int64(); err == nil {
		e.Sequence = &n
	}
	if n, err := strconv.ParseInt(f.ObservedAt.String(), 10, 64); err == nil {
		at := oona.Micros(n).Time()
		e.ObservedAt = &at
	}
	return f.Run, e
}
