package top

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/internal/history"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/verdict"
	"github.com/morphogenetic/oona/windows"
)

// polled is a bus with the topics of Oona, and a Poller of it.
type polled struct {
	*testing.T
	bus    *memory.Bus
	topics oona.Topics
	*Poller
}

func onBus(t *testing.T, test func(p *polled)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		topics, err := oona.NewTopics("top")
		if err != nil {
			t.Fatal(err)
		}
		b := memory.New()
		if _, err := b.Apply(t.Context(), append(topics.Specs(2), topics.SettingsSpec())); err != nil {
			t.Fatal(err)
		}
		first := windows.Configuration{Config: windows.DefaultConfig()}
		first.Config.Generation = 1
		if _, err := settings.WriteFirst(t.Context(), b, topics, first.Record(), "test", slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		test(&polled{t, b, topics, &Poller{Bus: b, Topics: topics, Group: aggregate.DefaultGroup}})
	})
}

// publish appends records with a header to a partition.
func (p *polled) publish(topic string, partition int32, n int, header, value string, payload []byte) {
	p.Helper()
	publisher, err := p.bus.Publisher(bus.PublisherOptions{})
	if err != nil {
		p.Fatal(err)
	}
	for range n {
		msg := message.NewMessage("", payload)
		msg.Metadata.Set(header, value)
		msg.SetContext(bus.WithTarget(msg.Context(), bus.Target{Partition: partition, Directed: true}))
		if err := publisher.Publish(p.Context(), topic, msg); err != nil {
			p.Fatal(err)
		}
	}
	if err := publisher.Close(); err != nil {
		p.Fatal(err)
	}
}

// commit makes the commits of an aggregator that has read all records.
func (p *polled) commit() {
	p.Helper()
	h, err := history.Open(p.Context(), p.bus, p.topics.SeedMetrics, "")
	if err != nil {
		p.Fatal(err)
	}
	if err := h.ReadOn(p.Context()); err != nil {
		p.Fatal(err)
	}
	commits := make(map[int32]bus.Commit)
	for _, partition := range h.Partitions {
		c, err := partition.Engine.Commit()
		if err != nil {
			p.Fatal(err)
		}
		commits[partition.Number] = bus.Commit{Offset: c.Offset, Metadata: "oona1 " + strconv.Itoa(len(h.Partitions)) + " " + c.Metadata}
	}
	if err := p.bus.SetCommits(p.Context(), aggregate.DefaultGroup, p.topics.SeedMetrics, commits); err != nil {
		p.Fatal(err)
	}
}

// The lag is the number of records that were not read and committed yet, and the age of the last one
// that was.
func TestPartitions(t *testing.T) {
	onBus(t, func(p *polled) {
		s := p.Poll(p.Context(), time.Now())
		if len(s.Partitions) != 2 || s.Partitions[0].Lag != nil || s.Partitions[0].PerSecond != nil || len(s.Faults) != 1 || !strings.Contains(s.Faults[0], "--group") {
			p.Errorf("without aggregators: %+v, %q", s.Partitions, s.Faults)
		}
		p.commit()
		s = p.Poll(p.Context(), time.Now())
		if lag := s.Partitions[0].Lag; lag == nil || *lag != 0 || *s.Partitions[0].LagSeconds != 0 || len(s.Faults) != 0 {
			p.Errorf("after a commit: %+v, %q", s.Partitions[0], s.Faults)
		}
		time.Sleep(10 * time.Second)
		p.publish(p.topics.SeedMetrics, 1, 5, oona.HeaderRecord, oona.TickRecord, nil)
		s = p.Poll(p.Context(), time.Now())
		for n, want := range []struct {
			lag           int64
			seconds, rate float64
		}{{0, 0, 0}, {5, 10, 0.5}} {
			if got := s.Partitions[n]; *got.Lag != want.lag || *got.LagSeconds != want.seconds || *got.PerSecond != want.rate || *got.Read != got.End-want.lag {
				p.Errorf("partition %d: lag %d, %g s, %g records/s, want %+v", n, *got.Lag, *got.LagSeconds, *got.PerSecond, want)
			}
		}
		commits := map[int32]bus.Commit{1: {Offset: 1, Metadata: "of another program"}}
		if err := p.bus.SetCommits(p.Context(), aggregate.DefaultGroup, p.topics.SeedMetrics, commits); err != nil {
			p.Fatal(err)
		}
		if s = p.Poll(p.Context(), time.Now()); s.Partitions[1].Fault == "" || s.Partitions[1].Lag != nil || s.Partitions[0].Fault != "" {
			p.Errorf("with a commit of another program: %+v", s.Partitions)
		}
	})
}

// Side topics have counts and rates. A side topic that does not exist is a fault, except the one for
// dead letters of the raw topic.
func TestSides(t *testing.T) {
	onBus(t, func(p *polled) {
		p.commit()
		s := p.Poll(p.Context(), time.Now())
		if len(s.Sides) != 4 || s.Sides[0].PerSecond != nil || s.Sides[0].PerMinute != nil {
			p.Errorf("at first: %+v", s.Sides)
		}
		p.publish(p.topics.Quarantine, 0, 30, oona.HeaderErrorException, "future", nil)
		for seconds, want := range []struct{ rate, minute float64 }{{30, 30}, {0, 30}} {
			time.Sleep(time.Second)
			s = p.Poll(p.Context(), time.Now())
			if got := s.Sides[1]; got.Name != "quarantine" || got.Records != 30 || *got.PerSecond != want.rate || *got.PerMinute != want.minute {
				p.Errorf("after %d s: %+v, %g records/s, %g in the last minute, want %+v", seconds+1, got, *got.PerSecond, *got.PerMinute, want)
			}
		}
		for range 60 {
			time.Sleep(time.Second)
			s = p.Poll(p.Context(), time.Now())
		}
		if got := *s.Sides[1].PerMinute; got != 0 || len(p.minute) > 62 {
			p.Errorf("a minute later: %g in the last minute, %d polls are kept", got, len(p.minute))
		}
		if err := p.bus.DeleteTopic(p.topics.Overflow); err != nil {
			p.Fatal(err)
		}
		s = p.Poll(p.Context(), time.Now())
		if len(s.Sides) != 3 || len(s.Faults) != 1 || !strings.Contains(s.Faults[0], p.topics.Overflow) {
			p.Errorf("without a topic: %+v, %q", s.Sides, s.Faults)
		}
	})
}

// The ingests are the paths of the last frames. Their rates are estimated.
func TestIngests(t *testing.T) {
	onBus(t, func(p *polled) {
		p.commit()
		p.Poll(p.Context(), time.Now())
		p.publish(p.topics.SeedMetrics, 0, 4, oona.HeaderPath, "ingest-a", nil)
		p.publish(p.topics.SeedMetrics, 0, 4, oona.HeaderPath, "ingest-b", nil)
		p.publish(p.topics.SeedMetrics, 1, 2, oona.HeaderPath, "ingest-a", nil)
		p.publish(p.topics.SeedMetrics, 1, 8, oona.HeaderRecord, oona.TickRecord, nil)
		seen := time.Now()
		time.Sleep(2 * time.Second)
		s := p.Poll(p.Context(), time.Now())
		if len(s.Ingests) != 2 {
			p.Fatalf("the ingests are %+v", s.Ingests)
		}
		for n, name := range []string{"ingest-a", "ingest-b"} {
			if got := s.Ingests[n]; got.Name != name || !got.Seen.Equal(seen) || *got.PerSecond != 2 || got.BusUp != nil {
				p.Errorf("%+v, %g frames/s, want 2, of %s", got, *got.PerSecond, name)
			}
		}
		time.Sleep(pathStays + time.Second)
		if s = p.Poll(p.Context(), time.Now()); len(s.Ingests) != 0 {
			p.Errorf("ingests without recent frames are shown: %+v", s.Ingests)
		}
	})
}

// If the bus does not answer, the snapshot has one fault and no partitions.
func TestPollWithoutBus(t *testing.T) {
	onBus(t, func(p *polled) {
		errAway := fmt.Errorf("%w: no answer", bus.ErrUnreachable)
		p.Bus = awayBus{p.bus, errAway}
		s := p.Poll(p.Context(), time.Now())
		if len(s.Faults) != 1 || !strings.Contains(s.Faults[0], errAway.Error()) || len(s.Partitions) != 0 {
			p.Errorf("the faults are %q", s.Faults)
		}
	})
}

type awayBus struct {
	*memory.Bus
	err error
}

func (b awayBus) Members(context.Context, string) ([]bus.GroupMember, error) { return nil, b.err }

func (b awayBus) Extents(context.Context, ...string) (map[string][]bus.Extent, error) {
	return nil, b.err
}

// The metrics of an ingest replace the estimate for the path with its name, and add the number of
// refused requests.
func TestWorkers(t *testing.T) {
	frames, status := 100, http.StatusOK
	ingest := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status != http.StatusOK || r.URL.Path != "/metrics" {
			http.Error(w, "no", status)
			return
		}
		text := "oona_bus_up{prefix=\"kasmina\"} 1\noona_ingest_info{name=\"ingest-a\"} 1\noona_ingest_frames_total " + strconv.Itoa(frames) +
			"\noona_ingest_rejected_total{reason=\"a\"} 1\noona_ingest_rejected_total{reason=\"b\"} " + strconv.Itoa(frames/10) + "\n"
		_, _ = w.Write([]byte(text))
	}))
	defer ingest.Close()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("oona_bus_up 1\n")) }))
	defer other.Close()
	refused := func(r *http.Response) error { return fmt.Errorf("%s: what to do", r.Status) }
	w := &Workers{Client: ingest.Client(), URLs: []string{ingest.URL + "/", other.URL}, Refused: refused}
	now := time.Now()
	seen := []Ingest{{Name: "ingest-a", Seen: now, PerSecond: to(7.0)}, {Name: "ingest-b", Seen: now}}
	got := w.add(t.Context(), append([]Ingest{}, seen...), now)
	if len(got) != 3 || got[0].Worker == "" || !*got[0].BusUp || *got[0].PerSecond != 7 || got[0].Refused != nil || got[1].Worker != "" || !strings.Contains(got[2].Fault, "oona_ingest_info") {
		t.Errorf("at first: %+v", got)
	}
	frames = 300
	got = w.add(t.Context(), append([]Ingest{}, seen...), now.Add(2*time.Second))
	if *got[0].PerSecond != 100 || *got[0].Refused != 10 || !got[0].Seen.Equal(now) {
		t.Errorf("then: %+v, %g frames/s, %g refused", got[0], *got[0].PerSecond, *got[0].Refused)
	}
	status = http.StatusUnauthorized
	got = w.add(t.Context(), append([]Ingest{}, seen...), now.Add(4*time.Second))
	if got[0].Name != "ingest-a" || !strings.Contains(got[0].Fault, "401 Unauthorized: what to do") {
		t.Errorf("with a status of 401: %+v", got[0])
	}
}

// Follow makes snapshots from rollups and polls. It ends when take returns an error.
func TestFollow(t *testing.T) {
	onBus(t, func(p *polled) {
		p.commit()
		for n := range int64(3) {
			r := &oona.Rollup{
				Run: "r", Layer: "enc.0", Start: oona.Micros(n * 10e6), End: oona.Micros((n + 1) * 10e6), Trigger: oona.Trigger{Offset: n},
				Metrics: []oona.MetricSummary{{Name: "gradient_norm", Count: 1, Infinite: n, Mean: 1}},
			}
			r.Hash = r.ContentHash()
			p.publish(p.topics.LayerHealth, 0, 1, "x", "y", avro.AppendRollup(nil, r))
		}
		time.Sleep(time.Second)
		reader, err := p.bus.Reader(bus.ReaderOptions{})
		if err != nil {
			p.Fatal(err)
		}
		defer func() { _ = reader.Close() }()
		notes := NewNotes()
		slog.New(notes).Warn("of the log")
		source := &Source{
			Notes: notes, Rollups: reader, Poller: p.Poller, Interval: time.Second, Settled: true,
			Board: watch.BoardOptions{Stay: time.Hour, Rule: func(string) verdict.Rule { return verdict.Rule{Judged: true} }, Logger: slog.New(slog.DiscardHandler)},
		}
		var last Snapshot
		count := 0
		err = source.Follow(p.Context(), func(s Snapshot) error {
			last = s
			if count++; count == 2 {
				return ErrEnough
			}
			return nil
		})
		if err != nil || count != 2 {
			p.Fatalf("%d snapshots, %v", count, err)
		}
		if len(last.Layers) != 1 || last.Layers[0].Verdict.Level != verdict.Critical || last.Reading || last.Partitions[0].PerSecond == nil || len(last.Faults) != 1 || last.Faults[0] != "log: of the log" {
			p.Errorf("the snapshot is %+v", last)
		}
		errOther := errors.New("other")
		again, err := p.bus.Reader(bus.ReaderOptions{})
		if err != nil {
			p.Fatal(err)
		}
		defer func() { _ = again.Close() }()
		source.Rollups = again
		if err := source.Follow(p.Context(), func(Snapshot) error { return errOther }); !errors.Is(err, errOther) {
			p.Errorf("the error is %v", err)
		}
	})
}

// The last warning of the log is shown for a minute.
func TestNotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notes := NewNotes()
		logger := slog.New(notes)
		logger.Info("nothing")
		if _, found := notes.at(time.Now()); found {
			t.Error("there is a warning before the first")
		}
		logger.Warn("first")
		logger.With("a", 1).WithGroup("g").Warn("second", "b", 2)
		if text, found := notes.at(time.Now()); !found || text != "second a=1 b=2" {
			t.Errorf("the warning is %q, %t", text, found)
		}
		time.Sleep(noteStays)
		if _, found := notes.at(time.Now()); found {
			t.Error("the warning stays")
		}
	})
}
