package layerseries

import (
	"errors"
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// errTrailing is returned for a record that holds more than one rollup.
var errTrailing = errors.New("bytes follow the rollup")

// Decode returns the rollup that a record of a group's topic holds. It returns an
// error if the record is not a rollup of the group.
func Decode(g oona.Group, payload []byte) (*oona.Rollup, error) {
	r := new(oona.Rollup)
	rest, err := avro.DecodeRollup(payload, r)
	if err != nil {
		return nil, fmt.Errorf("decode the rollup: %w", err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d of %d", errTrailing, len(rest), len(payload))
	}
	if err := checkRollup(r, g); err != nil {
		return nil, err
	}
	return r, nil
}

// errImplausible says that a rollup can be decoded, but was not made by an
// aggregator: what is computed from it would be wrong, or could not be exposed.
var errImplausible = errors.New("implausible rollup")

// maxBucketIndex is the bucket of the greatest finite float64.
const maxBucketIndex = 1024 << oona.HistogramSchema

// checkRollup returns an error that wraps errImplausible unless r is a rollup
// of that group whose parts agree.
func checkRollup(r *oona.Rollup, group oona.Group) error {
	if r.Group != group {
		return fmt.Errorf("%w: it is of %s, on the topic of %s", errImplausible, r.Group, group)
	}
	if err := errors.Join(oona.CheckID("run_id", string(r.Run)), oona.CheckID("layer_id", string(r.Layer))); err != nil {
		return fmt.Errorf("%w: %w", errImplausible, err)
	}
	if r.End <= r.Start {
		return fmt.Errorf("%w: its window ends at %d and starts at %d", errImplausible, r.End, r.Start)
	}
	counts := []int64{r.Frames, r.Readings, r.Duplicates, r.Seeds.Seen, r.Seeds.Active}
	for _, n := range append(counts, r.Seeds.ByState[:]...) {
		if n < 0 {
			return fmt.Errorf("%w: it counts %d frames, readings or seeds", errImplausible, n)
		}
	}
	for i := range r.Metrics {
		m := &r.Metrics[i]
		if err := checkMetric(m); err != nil {
			return fmt.Errorf("%w: metrics[%d]: %w", errImplausible, i, err)
		}
		if i > 0 && m.Name <= r.Metrics[i-1].Name {
			return fmt.Errorf("%w: metric %s follows %s; names ascend", errImplausible, m.Name, r.Metrics[i-1].Name)
		}
	}
	return nil
}

func checkMetric(m *oona.MetricSummary) error {
	if err := oona.CheckID("name", m.Name); err != nil {
		return err
	}
	if m.Count < 0 || m.NotMeasured < 0 || m.Infinite < 0 {
		return fmt.Errorf("%s counts %d samples, %d not measured, %d infinite", m.Name, m.Count, m.NotMeasured, m.Infinite)
	}
	total := m.Histogram.Zero
	for _, b := range []*oona.Buckets{&m.Histogram.Positive, &m.Histogram.Negative} {
		if len(b.Indexes) != len(b.Counts) {
			return fmt.Errorf("%s has %d bucket indexes and %d counts", m.Name, len(b.Indexes), len(b.Counts))
		}
		for i, index := range b.Indexes {
			if index < -maxBucketIndex || index > maxBucketIndex || i > 0 && index <= b.Indexes[i-1] {
				return fmt.Errorf("%s has bucket index %d at position %d; indexes ascend from %d to %d", m.Name, index, i, -maxBucketIndex, maxBucketIndex)
			}
			total += b.Counts[i]
		}
	}
	if total != uint64(m.Count) {
		return fmt.Errorf("%s counts %d samples and has %d in its buckets", m.Name, m.Count, total)
	}
	return nil
}
