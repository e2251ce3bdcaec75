package spool_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/morphogenetic/oona/spool"
)

// Sync calls the file system. The test syncs a device and a directory that do not support it: if
// Sync did nothing, it would return no error.
func TestSyncReachesTheFileSystem(t *testing.T) {
	devices, err := spool.OpenExisting("/dev")
	if err != nil {
		t.Fatal(err)
	}
	null, err := devices.Open("null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := null.Sync(); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a sync of a device returns %v", err)
	}
	processes, err := spool.OpenExisting("/proc")
	if err != nil {
		t.Fatal(err)
	}
	if err := processes.Sync(); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a sync of a directory without a disk returns %v", err)
	}
}
