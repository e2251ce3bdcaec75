package embedded

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// stampAll gives the batches of a request their append time, in topics that
// have one: kfake takes the setting and does nothing about it.
func (b *Broker) stampAll(request *kmsg.ProduceRequest, now time.Time) {
	for _, t := range request.Topics {
		var info *kfake.TopicInfo
		if request.Version >= 13 { // topics by id
			info = b.cluster.TopicIDInfo(t.TopicID)
		} else {
			info = b.cluster.TopicInfo(t.Topic)
		}
		if info == nil {
			continue // kfake refuses it
		}
		if kind := info.Configs["message.timestamp.type"]; kind == nil || *kind != "LogAppendTime" {
			continue
		}
		for _, p := range t.Partitions {
			stamp(p.Records, now.UnixMilli())
		}
	}
}

// Places in a record batch, from Kafka's message format 2.
const (
	lengthAt         = 8
	lengthPrefix     = 12 // bytes before what the length counts
	crcAt            = 17
	attributesAt     = 21 // the checksum covers everything from here
	firstTimestampAt = 27
	maxTimestampAt   = 35
	batchHeader      = 61
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamp sets the time of a batch's first record to now, in milliseconds, and
// mends the checksum. The others keep their distance from the first, as their
// times stand, perhaps compressed, in the records: where Kafka gives one time to
// all, here they differ by what they differed in the producer. The attribute
// that says LogAppendTime stays clear, as kfake breaks batches that have it.
func stamp(batch []byte, now int64) {
	if len(batch) < batchHeader || int64(binary.BigEndian.Uint32(batch[lengthAt:]))+lengthPrefix != int64(len(batch)) {
		return // kfake refuses it
	}
	first := int64(binary.BigEndian.Uint64(batch[firstTimestampAt:]))
	last := int64(binary.BigEndian.Uint64(batch[maxTimestampAt:]))
	binary.BigEndian.PutUint64(batch[firstTimestampAt:], uint64(now))
	binary.BigEndian.PutUint64(batch[maxTimestampAt:], uint64(now+last-first))
	binary.BigEndian.PutUint32(batch[crcAt:], crc32.Checksum(batch[attributesAt:], castagnoli))
}
