package export

import "sync/atomic"

// partition is one partition of a rollup topic.
type partition struct {
	highWater int64 // where its log ended when the stage began
	next      atomic.Int64
}
