package partition

// Handle folds a message as the router of Run does.
var Handle = (*Runtime).handle

// ErrFailed is why a partition is not ready whose machine has failed.
var ErrFailed = errFailed

// ErrRetrying is why a partition is not ready whose next record cannot be folded.
var ErrRetrying = errRetrying
