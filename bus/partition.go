package bus

import "encoding/binary"

// PartitionOf returns the partition of a key. It is the same on every bus, and for every
// producer that hashes keys with murmur2.
func PartitionOf(key []byte, partitions int) int32 {
	return Hash(key) % int32(partitions)
}

// Hash returns the hash of a key, which is not negative. Its partition is the remainder
// of the hash and the number of partitions.
func Hash(key []byte) int32 { return int32(murmur2(key) & 0x7fffffff) }

// murmur2 is 32-bit murmur2 with the seed that producers of a partitioned log agree on.
func murmur2(data []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
	)
	h := seed ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := binary.LittleEndian.Uint32(data) * m
		h = h*m ^ (k^k>>24)*m
	}
	for i := len(data) - 1; i >= 0; i-- {
		h ^= uint32(data[i]) << (8 * i)
	}
	if len(data) > 0 {
		h *= m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
