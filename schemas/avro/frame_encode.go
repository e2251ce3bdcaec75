package avro

import (
	"slices"

	"github.com/morphogenetic/oona"
)

// seedMetricsV1 is the fingerprint of seed_metrics.v1.avsc, which AppendFrame
// writes and FrameDecoder reads by hand.
const seedMetricsV1 = 0x5029670eda0a8f93

// AppendFrame appends f in single-object encoding of the latest SeedMetrics. It does not
// check f: call f.Validate first.
func AppendFrame(dst []byte, f *oona.Frame) []byte {
	dst = slices.Grow(dst, frameSize(f))
	dst = appendFraming(dst, seedMetricsV1)
	dst = appendText(dst, f.Run)
	dst = appendText(dst, f.Layer)
	dst = appendText(dst, f.Timeline)
	dst = appendText(dst, f.Producer)
	dst = appendLong(dst, f.Epoch)
	dst = appendLong(dst, f.Sequence)
	dst = appendLong(dst, f.ObservedAt)
	dst = appendLong(dst, f.Step)
	dst = appendSeedIDs(dst, f.Seeds)
	dst = appendLong(dst, len(f.States))
	dst = encodeStates(dst, f.States)
	dst = appendArray(dst, f.Metrics, appendColumn)
	return appendArray(dst, f.Tensors, appendTensor)
}

// frameSize returns an upper bound of the encoded size of f, so that dst grows only once.
func frameSize(f *oona.Frame) int {
	const number = 10 // maximum number of bytes of a long
	size := framingSize + 14*number + len(f.Run) + len(f.Layer) + len(f.Timeline) + len(f.Producer) + 5*len(f.Seeds) + len(f.States)
	for i := range f.Metrics {
		size += 3*number + len(f.Metrics[i].Name) + 4*len(f.Metrics[i].Values)
	}
	for i := range f.Tensors {
		t := &f.Tensors[i]
		size += 8*number + len(t.Name) + len(t.DType) + number*len(t.Shape) + len(t.Data)
		if t.Claim != nil {
			size += 3*number + len(t.Claim.Bucket) + len(t.Claim.Key) + len(t.Claim.SHA256)
		}
	}
	return size
}

func appendSeedIDs(dst []byte, ids []oona.SeedID) []byte {
	if len(ids) == 0 {
		return append(dst, 0)
	}
	dst = appendLong(dst, len(ids))
	for _, id := range ids {
		switch u := uint32(id)<<1 ^ uint32(id>>31); {
		case u < 1<<7:
			dst = append(dst, byte(u))
		case u < 1<<14:
			dst = append(dst, byte(u)|0x80, byte(u>>7))
		default:
			dst = appendLong(dst, id)
		}
	}
	return append(dst, 0)
}

func appendColumn(dst []byte, c oona.Column) []byte {
	dst = appendText(dst, c.Name)
	if len(c.Values) == 0 {
		return append(dst, 0)
	}
	dst = appendLong(dst, len(c.Values))
	dst = encodeFloats(dst, c.Values)
	return append(dst, 0)
}

// The branches of a tensor's data.
const (
	branchBytes = 0
	branchClaim = 1
)

func appendTensor(dst []byte, t oona.Tensor) []byte {
	dst = appendText(dst, t.Name)
	dst = appendLong(dst, t.Seed)
	dst = appendText(dst, t.DType)
	dst = appendArray(dst, t.Shape, appendLong)
	if t.Claim == nil {
		return appendText(appendLong(dst, branchBytes), t.Data)
	}
	dst = appendLong(dst, branchClaim)
	dst = appendText(dst, t.Claim.Bucket)
	dst = appendText(dst, t.Claim.Key)
	dst = appendLong(dst, t.Claim.Size)
	return append(dst, t.Claim.SHA256[:]...)
}
