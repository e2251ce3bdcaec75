package export

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// partition is one partition of a rollup topic.
type partition struct {
	highWater int64 // where its log ended when the stage began
	next      atomic.Int64
}

// errTrailing is returned for a record that holds more than one rollup.
var errTrailing = errors.New("bytes follow the rollup")

// decode returns the rollup that a record of a group's topic holds. It returns an
// error if the record is not a rollup of the group.
func decode(g oona.Group, payload []byte) (*oona.Rollup, error) {
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
