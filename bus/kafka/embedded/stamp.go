package embedded

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// stampAll sets append times in the batches of a request, for topics that have them:
// kfake accepts the setting and ignores it.
func (b *Broker) stampAll(request *kmsg.ProduceRequest, now time.Time) {
	for _, t := range request.Topics {
		var info *kfake.TopicInfo
		if request.Version >= 13 { // with topic ids
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

// Offsets in a record batch of message format 2.
const (
	lengthAt         = 8
	lengthPrefix     = 12 // bytes that the length does not count
	crcAt            = 17
	attributesAt     = 21 // the checksum covers everything after this
	firstTimestampAt = 27
	maxTimestampAt   = 35
	batchHeader      = 61
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamp sets the time of a batch's first record to now, in milliseconds, and corrects the
// checksum. The times of the other records are differences from the first, which may be
// compressed, and stay as they are. So the records of a batch have different times here,
// and equal ones in Kafka. The attribute LogAppendTime is not set, as kfake breaks
// batches that have it.
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
