package deadletters

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Letter is a record of a side topic.
type Letter struct {
	Side     Place       // where it is
	Origin   Place       // where it was; Side if its headers do not say
	Appended oona.Micros // when it was appended at its origin
	Reason   string      // one word
	Detail   string
	Stage    string // stage that has put it into the side topic
	Run      oona.RunID
	Layer    oona.LayerID
	Key      []byte // nil if there is none
	Message  *message.Message
	Outcome  Outcome // whether it was redriven or discarded
}

// newLetter returns the letter of a record.
func newLetter(msg *message.Message) (*Letter, error) {
	at, err := bus.PositionOf(msg)
	if err != nil {
		return nil, err
	}
	l := &Letter{
		Side:     Place{Topic: at.Topic, Partition: at.Partition, Offset: at.Offset},
		Appended: at.Appended,
		Reason:   msg.Metadata.Get(oona.HeaderErrorException),
		Detail:   msg.Metadata.Get(oona.HeaderErrorMessage),
		Stage:    msg.Metadata.Get(oona.HeaderErrorStage),
		Key:      at.Key,
		Message:  msg,
	}
	l.Origin = originOf(msg.Metadata, l.Side)
	if l.Run, l.Layer, err = oona.ParseKey(at.Key); err != nil {
		l.Run, l.Layer = layerOf(msg.Payload)
	}
	return l, nil
}

// originOf returns what the headers say, or side if they are not those of a side topic.
func originOf(m message.Metadata, side Place) Place {
	partition, err := strconv.ParseInt(m.Get(oona.HeaderErrorPartition), 10, 32)
	offset, err2 := strconv.ParseInt(m.Get(oona.HeaderErrorOffset), 10, 64)
	topic := m.Get(oona.HeaderErrorTopic)
	if err != nil || err2 != nil || topic == "" {
		return side
	}
	p := Place{Topic: topic, Partition: int32(partition), Offset: offset}
	if n, err := strconv.ParseInt(m.Get(oona.HeaderErrorIncarnation), 10, 64); err == nil {
		p.Incarnation = oona.Incarnation(n)
	}
	return p
}

// layerOf returns the run and the layer of a frame that has no key of Oona, as in the raw
// topic, if it can be decoded.
func layerOf(value []byte) (oona.RunID, oona.LayerID) {
	decoder := avro.FrameDecoder{Limits: anyFrame}
	frames, err := decodeFrames(&decoder, value)
	if err != nil || len(frames) == 0 {
		return "", ""
	}
	ids := frameIDs(frames[0])
	return ids.Run, ids.Layer
}

// digest identifies the value of the letter.
func (l *Letter) digest() string { return hexDigest(l.Message.Payload) }

func hexDigest(value []byte) string {
	sum := sha256.Sum256(value)
	return hex.EncodeToString(sum[:])
}

// Selection says which letters are meant. What is empty selects everything.
type Selection struct {
	Topics  []string // side topics
	Places  []Place  // places of the letters, in the side topic or before
	Reasons []string
	Origins []string // where the records were: TOPIC or TOPIC/PARTITION
	Runs    []oona.RunID
	Layers  []oona.LayerID
	From    oona.Micros // when the record was appended first
	Until   oona.Micros // end, not included; 0 means no end
}

func chosen[T comparable](from []T, one T) bool { return len(from) == 0 || slices.Contains(from, one) }

// Wants reports whether a letter is selected.
func (s *Selection) Wants(l *Letter) bool {
	return chosen(s.Topics, l.Side.Topic) && chosen(s.Reasons, l.Reason) && s.wantsOrigin(l.Origin) &&
		chosen(s.Runs, l.Run) && chosen(s.Layers, l.Layer) &&
		l.Appended >= s.From && (s.Until == 0 || l.Appended < s.Until) &&
		(len(s.Places) == 0 || slices.Contains(s.Places, l.Side) || slices.Contains(s.Places, l.Origin))
}

func (s *Selection) wantsOrigin(p Place) bool {
	return chosen(s.Origins, p.Topic) || slices.Contains(s.Origins, fmt.Sprintf("%s/%d", p.Topic, p.Partition))
}

// Box has the side topics and the ledger with the outcomes of their letters.
type Box struct {
	Bus    bus.Admin
	Ledger *Ledger
	Topics []string // side topics, in the order in which they are read
	// Optional are those of them that need not exist.
	Optional []string
}

// Extents returns the extents of the partitions of a side topic. It is empty if an optional topic
// does not exist.
func (b *Box) Extents(ctx context.Context, topic string) ([]bus.Extent, error) {
	extents, err := b.Bus.Extents(ctx, topic)
	if errors.Is(err, bus.ErrNoTopic) && slices.Contains(b.Optional, topic) {
		return nil, nil
	}
	return extents[topic], err
}

// Each calls take with the selected letters: topic by topic, partition by partition, in
// the order of the offsets. read is called for each record that was read; it may be nil.
func (b *Box) Each(ctx context.Context, s *Selection, read func(), take func(*Letter) error) error {
	for _, topic := range b.Topics {
		if !chosen(s.Topics, topic) {
			continue
		}
		held, err := b.Extents(ctx, topic)
		if err != nil {
			return err
		}
		for p, e := range held {
			if err := b.each(ctx, s, topic, bus.Range{Partition: int32(p), From: e.Start, End: e.End}, read, take); err != nil {
				return err
			}
		}
	}
	return nil
}

// readLetters and readBytes limit how many letters are read before they are taken. Each
// batch costs a new fetch from the broker.
const (
	readLetters = 4096
	readBytes   = 8 << 20
)

var errFull = errors.New("the batch is full")

// each reads a range in batches, as take may take long.
func (b *Box) each(ctx context.Context, s *Selection, topic string, r bus.Range, read func(), take func(*Letter) error) error {
	for r.From < r.End {
		var batch []*Letter
		bytes, next := 0, r.End
		err := b.Bus.Read(ctx, topic, r, func(msg *message.Message) error {
			if read != nil {
				read()
			}
			l, err := newLetter(msg)
			if err != nil || !s.Wants(l) {
				return err
			}
			l.Outcome = b.Ledger.Of(l)
			batch, bytes = append(batch, l), bytes+len(msg.Payload)
			if len(batch) == readLetters || bytes >= readBytes {
				next = l.Side.Offset + 1
				return errFull
			}
			return nil
		})
		if err != nil && !errors.Is(err, errFull) {
			return err
		}
		for _, l := range batch {
			if err := take(l); err != nil {
				return err
			}
		}
		r.From = next
	}
	return nil
}
