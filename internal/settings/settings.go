// Package settings reads and writes the settings topic, which has the settings that workers share.
// The topic is compacted, and has one partition and these keys:
//
//	catalogue/HASH               a catalogue of metrics, as YAML
//	windows/PARTITION            the configuration last written to a partition of seed-metrics
//	incarnation/TOPIC/PARTITION  the greatest incarnation of a partition's log, in decimal
//
// Only the command oona writes it, with one exception: a worker that continues after a
// partition has lost its end writes an incarnation.
package settings

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Settings are the content of the topic when it was read.
type Settings struct {
	// Found is false if the topic does not exist. Then the Settings are empty.
	Found bool
	// Windows has the last configuration of each partition.
	Windows map[int32]oona.WindowConfiguration

	topic        string
	written      map[int32][]oona.WindowConfiguration // all configurations of each partition that compaction has left, including the one in Windows
	catalogues   map[string][]byte                    // YAML, by the hash as text
	incarnations map[place]oona.Incarnation
}

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

// Prefixes of keys.
const (
	catalogueKey   = "catalogue/"
	windowsKey     = "windows/"
	incarnationKey = "incarnation/"
)

// readTimeout limits the time for reading the topic, which is short.
const readTimeout = 30 * time.Second

// Read reads the whole topic. A topic that does not exist is empty. If the bus does not
// answer, the error wraps bus.ErrUnreachable. A value that cannot be decoded is logged
// and ignored, except for an incarnation, which is an error.
func Read(ctx context.Context, b bus.Bus, topics oona.Topics, logger *slog.Logger) (*Settings, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	s := &Settings{
		Found: true, Windows: make(map[int32]oona.WindowConfiguration),
		topic: topics.Settings, written: make(map[int32][]oona.WindowConfiguration), catalogues: make(map[string][]byte), incarnations: make(map[place]oona.Incarnation),
	}
	err := b.Read(ctx, topics.Settings, bus.Range{End: math.MaxInt64}, func(msg *message.Message) error { return s.take(msg, logger) })
	if errors.Is(err, bus.ErrNoTopic) {
		s.Found, err = false, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	return s, nil
}

// take adds a record. A record without a value deletes its key.
func (s *Settings) take(msg *message.Message, logger *slog.Logger) error {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return err
	}
	key := string(at.Key)
	switch {
	case strings.HasPrefix(key, catalogueKey):
		s.takeCatalogue(strings.TrimPrefix(key, catalogueKey), msg.Payload)
	case strings.HasPrefix(key, windowsKey):
		if err := s.takeWindows(strings.TrimPrefix(key, windowsKey), msg.Payload); err != nil {
			logger.Error("a value in the settings topic cannot be read and is left out", "topic", s.topic, "key", key, "offset", at.Offset, "err", err)
		}
	case strings.HasPrefix(key, incarnationKey):
		if err := s.takeIncarnation(strings.TrimPrefix(key, incarnationKey), msg.Payload); err != nil {
			return fmt.Errorf("key %s: %w", key, err)
		}
	default:
		logger.Warn("a key in the settings topic is not known to this version", "topic", s.topic, "key", key, "offset", at.Offset)
	}
	return nil
}

func (s *Settings) takeCatalogue(hash string, value []byte) {
	delete(s.catalogues, hash)
	if len(value) > 0 {
		s.catalogues[hash] = value
	}
}

func (s *Settings) takeWindows(partition string, value []byte) error {
	p, err := strconv.ParseInt(partition, 10, 32)
	if err != nil {
		return err
	}
	delete(s.Windows, int32(p))
	earlier := s.written[int32(p)]
	delete(s.written, int32(p))
	if len(value) == 0 {
		return nil
	}
	c, err := avro.DecodeConfiguration(value)
	if err != nil {
		return err
	}
	s.Windows[int32(p)] = c
	// After a correction, or if the log was made again, earlier configurations no longer count.
	earlier = slices.DeleteFunc(earlier, func(e oona.WindowConfiguration) bool { return e.Generation >= c.Generation })
	s.written[int32(p)] = append(earlier, c)
	return nil
}

func (s *Settings) takeIncarnation(of string, value []byte) error {
	slash := strings.LastIndexByte(of, '/')
	p, err := strconv.ParseInt(of[slash+1:], 10, 32)
	if slash < 0 || err != nil {
		return errors.New("it does not end in /TOPIC/PARTITION")
	}
	at := place{of[:slash], int32(p)}
	delete(s.incarnations, at)
	if len(value) == 0 {
		return nil
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return fmt.Errorf("the value is %.40q, not the number of an incarnation: %w", value, err)
	}
	s.incarnations[at] = oona.Incarnation(n)
	return nil
}

// Incarnation returns the last incarnation of a partition's log, or 0.
func (s *Settings) Incarnation(topic string, partition int32) oona.Incarnation {
	return s.incarnations[place{topic, partition}]
}

// Catalogue returns the catalogue of a hash, built in or from the topic, or false.
func (s *Settings) Catalogue(hash oona.CatalogueHash) (*catalogue.Catalogue, bool, error) {
	c, found, err := catalogue.BuiltIn(hash)
	if found || err != nil {
		return c, found, err
	}
	text, found := s.catalogues[hash.String()]
	if !found {
		return nil, false, nil
	}
	if c, err = catalogue.Parse(text); err != nil {
		return nil, false, fmt.Errorf("key %s%s of %s: %w", catalogueKey, hash, s.topic, err)
	}
	if got := c.Hash(); got != hash {
		return nil, false, fmt.Errorf("key %s%s of %s: its value is a catalogue with the hash %s; write the right one again with: oona topics apply --catalogue FILE", catalogueKey, hash, s.topic, got)
	}
	return c, true, nil
}

// Entry is a key of the topic with its value.
type Entry struct {
	key   string
	value []byte
}

// CatalogueEntry returns the entry of a catalogue.
func CatalogueEntry(c *catalogue.Catalogue) (Entry, error) {
	text, err := c.YAML()
	return Entry{catalogueKey + c.Hash().String(), text}, err
}

// WindowsEntry returns the entry of the last configuration of a partition.
func WindowsEntry(partition int32, c oona.WindowConfiguration) Entry {
	return Entry{windowsKey + strconv.Itoa(int(partition)), avro.AppendConfiguration(nil, c)}
}

// IncarnationEntry returns the entry of the greatest incarnation of a partition's log.
func IncarnationEntry(topic string, partition int32, n oona.Incarnation) Entry {
	return Entry{incarnationKey + topic + "/" + strconv.Itoa(int(partition)), strconv.AppendInt(nil, int64(n), 10)}
}

// Write appends entries to the topic.
func Write(ctx context.Context, b bus.Bus, topics oona.Topics, entries ...Entry) error {
	if len(entries) == 0 {
		return nil
	}
	messages := make([]*message.Message, len(entries))
	for i, e := range entries {
		messages[i] = bus.NewMessage(e.value, bus.Target{Key: []byte(e.key), Directed: true})
	}
	return publish(ctx, b, topics.Settings, messages)
}

// publish appends messages to a topic, in their order within each partition. After a
// message that fails, no other one is written.
func publish(ctx context.Context, b bus.Bus, topic string, messages []*message.Message) (err error) {
	publisher, err := b.Publisher(bus.PublisherOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	if err := publisher.Publish(ctx, topic, messages...); err != nil {
		return fmt.Errorf("write to %s, which `oona topics apply` makes: %w", topic, err)
	}
	return nil
}
