package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"syscall"
	"testing"
)

// TestDrainOfADirectoryThatCannotBeWritten: the error says to drain a copy. Nobody can create a
// file in sysfs, not even root.
func TestDrainOfADirectoryThatCannotBeWritten(t *testing.T) {
	_, err := (&spoolDrain{Directory: "/sys/kernel"}).open(slog.New(slog.DiscardHandler))
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		t.Fatalf("a spool in sysfs is opened: %v", err)
	}
	if !errors.Is(err, errDrainWrites) {
		t.Errorf("%v; want %v", err, errDrainWrites)
	}
}
