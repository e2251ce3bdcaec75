package kafka

import "log/slog"

// Bus is a bus.Bus. It keeps no connection: the publishers, members and readers that it
// makes, and each call of its other methods, connect by themselves.
type Bus struct {
	cfg    Config
	logger *slog.Logger
}

// New returns a bus. Its methods validate the configuration. The logger is for members
// and readers; with nil they log nothing.
func New(cfg Config, logger *slog.Logger) *Bus {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	cfg.login = new(login)
	return &Bus{cfg, logger}
}
