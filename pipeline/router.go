// Package pipeline has the code that the stages share: their router, the outbox and the
// messages of side topics. The stages are the packages below it. Each has a Config
// and a Run, which its own binary and the demo call.
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

// NewRouter returns a router without middleware: handlers ack and nack every record
// themselves, and must see redeliveries to recognise them. What Watermill logs as
// info is logged as debug, since it logs every subscription.
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
