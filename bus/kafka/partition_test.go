package kafka

import (
	"testing"

	"github.com/IBM/sarama"
)

// Hashes from the tests of Kafka's Java client (UtilsTest.testMurmur2).
var murmur2OfJava = map[string]int32{
	"21":                         -973932308,
	"foobar":                     -790332482,
	"a-little-bit-long-string":   -985981536,
	"a-little-bit-longer-string": -1486304829,
	"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
	"abc": 479470107,
}

// Java's partitioner uses Utils.toPositive(murmur2(key)) % partitions, which clears the
// sign bit. That is not the absolute value.
func TestKeysGoWhereJavaSendsThem(t *testing.T) {
	p := newPartitioner("t")
	for key, hash := range murmur2OfJava {
		for _, partitions := range []int32{1, 2, 3, 12, 97, 1000} {
			got, err := p.Partition(&sarama.ProducerMessage{Key: sarama.StringEncoder(key)}, partitions)
			if want := (hash & 0x7fffffff) % partitions; err != nil || got != want {
				t.Errorf("%q of %d partitions: %d, %v; want %d", key, partitions, got, err, want)
			}
		}
	}
}

func TestDirectedMessagesGoWhereTheyAreSent(t *testing.T) {
	p := newPartitioner("t")
	directed := &sarama.ProducerMessage{Key: sarama.StringEncoder("foobar"), Metadata: toPartition(7)}
	if got, err := p.Partition(directed, 12); got != 7 || err != nil {
		t.Errorf("partition %d, %v", got, err)
	}
	for name, c := range map[string]struct {
		msg  *sarama.ProducerMessage
		want bool
	}{
		"directed": {directed, true},
		"keyed":    {&sarama.ProducerMessage{Key: sarama.StringEncoder("k")}, true},
		"neither":  {&sarama.ProducerMessage{}, false},
	} {
		if got := p.MessageRequiresConsistency(c.msg); got != c.want {
			t.Errorf("%s: requires consistency %v", name, got)
		}
	}
}
