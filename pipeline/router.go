// Package pipeline holds what the stages share: how a stage's Watermill router
// is made. The stages themselves are the packages below it; each has a Config
// and a Run that both its own binary and the demo call.
package pipeline

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// closeTimeout bounds how long a router waits for its handlers when it stops.
const closeTimeout = 20 * time.Second

// NewRouter returns a router without middleware: handlers of telemetry settle
// every record themselves, and a redelivery must reach them to be recognised.
// What Watermill calls info is debug here: it speaks at every subscription.
func NewRouter(logger *slog.Logger) (*message.Router, error) {
	quiet := watermill.NewSlogLoggerWithLevelMapping(logger, map[slog.Level]slog.Level{
		slog.LevelInfo: slog.LevelDebug,
	})
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: closeTimeout}, quiet)
	if err != nil {
		return nil, fmt.Errorf("make the message router: %w", err)
	}
	return router, nil
}
