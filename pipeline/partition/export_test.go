package partition

import "github.com/morphogenetic/oona/bus"

// Handle folds a message as the router of Run does.
var Handle = (*Runtime).handle

// ErrFailed is the error of a partition that is not ready because its machine has failed.
var ErrFailed = errFailed

// ReadyOf returns why the partition of a Consumer is not ready, or nil.
func ReadyOf(c bus.Consumer) error { return c.(*assignment).ready() }
