package spool_test

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/morphogenetic/oona/spool"
)

// watched returns a function that returns what has happened in a directory since: "create NAME" and
// "open NAME" for a directory in it, and "open" for the directory itself.
func watched(t *testing.T, dir string) (happened func() []string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Skipf("there is no inotify: %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_OPEN|unix.IN_CREATE); err != nil {
		t.Fatal(err)
	}
	return func() (all []string) {
		buffer := make([]byte, 1<<16)
		n, err := unix.Read(fd, buffer)
		if err != nil {
			t.Fatalf("nothing has happened in %s: %v", dir, err)
		}
		for at := 0; at < n; {
			mask, length := binary.NativeEndian.Uint32(buffer[at+4:]), int(binary.NativeEndian.Uint32(buffer[at+12:]))
			what := "open"
			if mask&unix.IN_CREATE != 0 {
				what = "create"
			}
			at += unix.SizeofInotifyEvent
			name := strings.TrimRight(string(buffer[at:at+length]), "\x00")
			all = append(all, strings.TrimSpace(what+" "+name))
			at += length
		}
		return all
	}
}

// After a directory was made, its parent is opened, to sync it. Without the sync, the directory may
// be missing after a crash of the system. TestSyncReachesTheFileSystem shows that a sync reaches the
// file system.
func TestParentOfADirectoryIsSynced(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"spool", filepath.Join("several", "new", "ones")} {
		happened := watched(t, root)
		if _, err := spool.OpenDirectory(filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(dir, string(filepath.Separator))
		got := happened()
		made := slices.Index(got, fmt.Sprint("create ", first))
		if made < 0 || !slices.Contains(got[made:], "open") {
			t.Errorf("while %s was made, this happened in its parent: %q", dir, got)
		}
	}
	inner := filepath.Join(root, "several", "new")
	happened := watched(t, inner)
	if _, err := spool.OpenDirectory(filepath.Join(inner, "another")); err != nil {
		t.Fatal(err)
	}
	if got := happened(); !slices.Equal(got, []string{"create another", "open"}) {
		t.Errorf("while a directory was made in a parent that existed, this happened in the parent: %q", got)
	}
}
