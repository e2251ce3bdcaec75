package bus

import (
	"context"
	"time"
)

// Pause waits before another attempt, or another look. It returns false if ctx
// ended before the time had passed.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
