// Package systemd tests the units of this directory and the settings in etc; see
// README.md.
package systemd
