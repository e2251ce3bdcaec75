package settings_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/schemas/avro"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// onBus calls test with a bus in a bubble, where time is simulated.
func onBus(t *testing.T, test func(t *testing.T, b *memory.Bus, topics oona.Topics)) {
	synctest.Test(t, func(t *testing.T) {
		topics, err := oona.NewTopics("settings")
		if err != nil {
			t.Fatal(err)
		}
		test(t, memory.New(), topics)
	})
}

// makeTopics creates all topics, including the settings topic.
func makeTopics(t *testing.T, b bus.Bus, topics oona.Topics, partitions int32) {
	t.Helper()
	apply(t, b, append(topics.Specs(partitions), topics.SettingsSpec())...)
}

func apply(t *testing.T, b bus.Bus, specs ...oona.TopicSpec) {
	t.Helper()
	if _, err := b.Apply(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, b bus.Bus, topics oona.Topics) *settings.Settings {
	t.Helper()
	s, err := settings.Read(t.Context(), b, topics, discard())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publish(t *testing.T, b bus.Bus, topic string, messages ...*message.Message) {
	t.Helper()
	p, err := b.Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Publish(context.Background(), topic, messages...); err != nil {
		t.Fatal(err)
	}
}

func keyed(key string, payload []byte) *message.Message {
	return bus.NewMessage(payload, bus.Target{Key: []byte(key)})
}

func directed(partition int32, payload []byte) *message.Message {
	return bus.NewMessage(payload, bus.Target{Partition: partition, Directed: true})
}

func configuration(generation int32) oona.WindowConfiguration {
	return oona.WindowConfiguration{
		Generation: generation, Length: 10e6, TickInterval: 1e6, IdleHorizon: 60e6, MaxTimelines: 1, MaxAccumulators: 2,
		MaxTimelineAccumulators: 2, MaxLayers: 3, MaxMetrics: 4, MaxSeeds: 5, FrontierSlots: 6, Reducer: 2, Catalogue: oona.CatalogueHash{9},
	}
}

// ownCatalogue returns a catalogue that is not built in.
func ownCatalogue(t *testing.T, text string) *catalogue.Catalogue {
	t.Helper()
	c, err := catalogue.Default()
	if err != nil {
		t.Fatal(err)
	}
	if c, err = c.With(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return c
}

// The last value of each key is read back. A topic that does not exist is empty.
func TestReadBack(t *testing.T) {
	onBus(t, func(t *testing.T, b *memory.Bus, topics oona.Topics) {
		if s := read(t, b, topics); s.Found || len(s.Windows) > 0 || s.Incarnation(topics.SeedMetrics, 0) != 0 {
			t.Errorf("a topic that does not exist holds %+v", s)
		}
		makeTopics(t, b, topics, 2)
		if s := read(t, b, topics); !s.Found || len(s.Windows) > 0 {
			t.Errorf("an empty topic holds %+v", s)
		}
		own := ownCatalogue(t, "metrics: {energy: {group: health, direction: lower_is_better, unit: joules}}")
		entry, err := settings.CatalogueEntry(own)
		if err != nil {
			t.Fatal(err)
		}
		err = settings.Write(t.Context(), b, topics, entry,
			settings.WindowsEntry(0, configuration(1)), settings.WindowsEntry(1, configuration(1)), settings.WindowsEntry(1, configuration(7)),
			settings.IncarnationEntry(topics.SeedMetrics, 1, 41), settings.IncarnationEntry(topics.SeedMetrics, 1, 42))
		if err != nil {
			t.Fatal(err)
		}
		s := read(t, b, topics)
		if !maps.Equal(s.Windows, map[int32]oona.WindowConfiguration{0: configuration(1), 1: configuration(7)}) {
			t.Errorf("windows are %+v", s.Windows)
		}
		if a, b := s.Incarnation(topics.SeedMetrics, 1), s.Incarnation(topics.SeedMetrics, 0); a != 42 || b != 0 {
			t.Errorf("incarnations are %d and %d", a, b)
		}
		c, found, err := s.Catalogue(own.Hash())
		if err != nil || !found || c.Metric("energy") != own.Metric("energy") || c.Hash() != own.Hash() {
			t.Errorf("the catalogue is %v, %v, %v", c, found, err)
		}
		if _, found, err := s.Catalogue(oona.CatalogueHash{1, 2, 3}); found || err != nil {
			t.Errorf("a catalogue that was not written: %v, %v", found, err)
		}
		publish(t, b, topics.Settings, keyed("windows/0", nil), keyed("catalogue/"+own.Hash().String(), nil))
		if s := read(t, b, topics); len(s.Windows) != 1 {
			t.Errorf("after a deletion there are %+v", s.Windows)
		} else if _, found, err := s.Catalogue(own.Hash()); found || err != nil {
			t.Errorf("a deleted catalogue: %v, %v", found, err)
		}
	})
}

// Values that cannot be decoded are ignored, unless that could do harm.
func TestDamagedValues(t *testing.T) {
	onBus(t, func(t *testing.T, b *memory.Bus, topics oona.Topics) {
		makeTopics(t, b, topics, 1)
		if err := settings.Write(t.Context(), b, topics, settings.WindowsEntry(0, configuration(1))); err != nil {
			t.Fatal(err)
		}
		own := ownCatalogue(t, "metrics: {a: {group: health}}")
		publish(t, b, topics.Settings,
			keyed("something/else", []byte("of a later version")),
			keyed("windows/7", []byte("who knows")),
			keyed("catalogue/0102030405060708", []byte("metrics: [")),
			keyed("catalogue/"+own.Hash().String(), []byte("metrics: {b: {group: health}}")))
		s := read(t, b, topics)
		if !maps.Equal(s.Windows, map[int32]oona.WindowConfiguration{0: configuration(1)}) {
			t.Errorf("windows are %+v", s.Windows)
		}
		for _, hash := range []oona.CatalogueHash{{1, 2, 3, 4, 5, 6, 7, 8}, own.Hash()} {
			if _, found, err := s.Catalogue(hash); found || err == nil {
				t.Errorf("a damaged catalogue %s: %v, %v", hash, found, err)
			}
		}
		publish(t, b, topics.Settings, keyed("incarnation/"+topics.SeedMetrics+"/0", []byte("soon")))
		if _, err := settings.Read(t.Context(), b, topics, discard()); !errors.Is(err, strconv.ErrSyntax) {
			t.Errorf("a damaged incarnation: %v", err)
		}
	})
}

// away is a bus that cannot be reached.
type away struct{ bus.Bus }

func (away) Read(context.Context, string, bus.Range, func(*message.Message) error) error {
	return fmt.Errorf("read: %w", bus.ErrUnreachable)
}

func TestBusThatIsNotThere(t *testing.T) {
	onBus(t, func(t *testing.T, b *memory.Bus, topics oona.Topics) {
		if s, err := settings.Read(t.Context(), away{b}, topics, discard()); !errors.Is(err, bus.ErrUnreachable) {
			t.Errorf("read %+v, %v; want ErrUnreachable", s, err)
		}
	})
}

// A catalogue that is written after the first read is found by the next one, which waits
// until it may read again.
func TestCataloguesAreReadAgain(t *testing.T) {
	onBus(t, func(t *testing.T, b *memory.Bus, topics oona.Topics) {
		makeTopics(t, b, topics, 1)
		known := settings.NewCatalogues(b, topics, discard())
		own := ownCatalogue(t, "metrics: {loss: {group: health}}")
		if c, err := known.Find(t.Context(), oona.CatalogueHash{}); err != nil || c.Metric("improvement").Direction != oona.HigherIsBetter {
			t.Errorf("the first built-in: %v, %v", c, err)
		}
		if _, err := known.Find(t.Context(), own.Hash()); !errors.Is(err, settings.ErrUnknownCatalogue) {
			t.Errorf("before it is written: %v", err)
		}
		looked := time.Now()
		entry, err := settings.CatalogueEntry(own)
		if err != nil {
			t.Fatal(err)
		}
		if err := settings.Write(t.Context(), b, topics, entry); err != nil {
			t.Fatal(err)
		}
		if c, err := known.Find(t.Context(), own.Hash()); err != nil || c.Metric("loss").Group != oona.Health {
			t.Errorf("after it is written: %v, %v", c, err)
		}
		if waited := time.Since(looked); waited < 1900*time.Millisecond {
			t.Errorf("the topic was read again after %s, and is to be read at most every two seconds", waited)
		}
	})
}

// records returns the records of a partition of seed-metrics.
func records(t *testing.T, b bus.Bus, topics oona.Topics, partition int32) (all []*message.Message) {
	t.Helper()
	err := b.Read(t.Context(), topics.SeedMetrics, bus.Range{Partition: partition, End: math.MaxInt64}, func(msg *message.Message) error { all = append(all, msg); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// start decodes the start of an incarnation.
func start(t *testing.T, msg *message.Message) oona.IncarnationStart {
	t.Helper()
	s, err := avro.DecodeIncarnation(msg.Payload)
	if err != nil || msg.Metadata.Get(oona.HeaderRecord) != oona.IncarnationRecord {
		t.Fatalf("%v has %+v, %v", msg.Metadata, s, err)
	}
	return s
}
