package claimcheck_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/claimcheck/claimchecktest"
)

// An abandoned file is deleted, and a file that is being written is not.
func TestDirectoryIsSwept(t *testing.T) {
	dir := t.TempDir()
	openDirectory(t, dir, limit)
	dead, writing := filepath.Join(dir, "incoming", "dead"), filepath.Join(dir, "incoming", "writing")
	for _, name := range []string{dead, writing} {
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	yesterday := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(dead, yesterday, yesterday); err != nil {
		t.Fatal(err)
	}
	openDirectory(t, dir, limit)
	if left := filesBelow(t, filepath.Join(dir, "incoming"), ""); len(left) != 1 || left[0] != "writing" {
		t.Errorf("left are %q", left)
	}
}

// A link out of the directory is not followed.
func TestDirectoryHasNoWayOut(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	store := openDirectory(t, dir, limit)
	content := claimchecktest.Content(1, small)
	if err := os.WriteFile(outside, content, 0o600); err != nil {
		t.Fatal(err)
	}
	claim := store.Claim(content)
	if err := os.Symlink(outside, filepath.Join(dir, filepath.FromSlash(claim.Key))); err != nil {
		t.Fatal(err)
	}
	if data, err := store.Bytes(t.Context(), claim); err == nil || data != nil {
		t.Errorf("%d bytes from outside, error %v", len(data), err)
	}
}

// smallDirectory tells a process of TestDirectoryIsFull where to mount a small file system.
const smallDirectory = "OONATEST_SMALL_DIRECTORY"

// TestDirectoryIsFull runs itself in namespaces of its own, where every user may mount a file system.
func TestDirectoryIsFull(t *testing.T) {
	dir := os.Getenv(smallDirectory)
	if dir == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDirectoryIsFull$", "-test.v")
		cmd.Env = append(os.Environ(), smallDirectory+"="+t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if err != nil && os.Getenv("OONA_REQUIRE_NAMESPACES") == "" && strings.Contains(err.Error()+string(out), "operation not permitted") {
			t.Skipf("SKIPPED, NOT TESTED ON A FULL DISK: file systems cannot be mounted here: %v", err)
		}
		if err != nil || !bytes.Contains(out, []byte("--- PASS: TestDirectoryIsFull")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	store := openDirectory(t, dir, limit)
	if _, _, err := store.CheckIn(t.Context(), bytes.NewReader(claimchecktest.Content(1, 512<<10))); !errors.Is(err, claimcheck.ErrFull) {
		t.Errorf("error is %v, want one that is ErrFull", err)
	}
	if left := filesBelow(t, dir, ""); len(left) != 0 {
		t.Errorf("left are %q", left)
	}
	if _, fresh, err := store.CheckIn(t.Context(), bytes.NewReader(claimchecktest.Content(2, 1000))); err != nil || !fresh {
		t.Errorf("what has room: fresh is %v, error %v", fresh, err)
	}
}

// spools counts the open files without a name that hold tensors.
func spools(t *testing.T) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil && strings.Contains(name, "oona-tensor-") {
			n++
		}
	}
	return n
}

// The temporary file of a check-in disappears, whatever the outcome.
func TestSpoolsAreClosed(t *testing.T) {
	store := openDirectory(t, t.TempDir(), limit)
	content := claimchecktest.Content(1, large)
	spooled, err := store.Spool(t.Context(), bytes.NewReader(content))
	if err != nil || spools(t) != 1 {
		t.Fatalf("%d spools are open where one is, error %v", spools(t), err)
	}
	if err := spooled.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // fresh, and known
		if _, _, err := store.CheckIn(t.Context(), bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	broken := io.MultiReader(bytes.NewReader(content), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, _, err := store.CheckIn(t.Context(), broken); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a body that breaks off: %v", err)
	}
	if left := spools(t); left != 0 {
		t.Errorf("%d spools are left open", left)
	}
}
