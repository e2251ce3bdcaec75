package bus

import "testing"

// Hashes from the tests of Kafka's Java client (UtilsTest.testMurmur2).
func TestMurmur2OfJava(t *testing.T) {
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
		"":    275646681,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
		for _, partitions := range []int{1, 2, 3, 12, 97, 1000} { // Utils.toPositive clears the sign bit
			if got := PartitionOf([]byte(key), partitions); got != (want&0x7fffffff)%int32(partitions) {
				t.Errorf("%q of %d partitions: %d", key, partitions, got)
			}
		}
	}
}
