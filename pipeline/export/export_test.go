package export

// Reasons for which the stage is not ready, or ends.
var (
	ErrCatchingUp = errCatchingUp
	ErrLogEnded   = errLogEnded
)
