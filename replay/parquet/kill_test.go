package parquet_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/parquet"
)

// The variables say what a child process does: see TestChild.
const (
	childDir  = "OONA_TEST_PARQUET_DIR"
	childKill = "OONA_TEST_PARQUET_KILL" // time after which it kills itself
	childFull = "OONA_TEST_PARQUET_FULL" // size of a file above which it cannot be written
)

// killedLog is the log that is replayed while processes are killed.
func killedLog(t testing.TB) *memoryLog {
	log, _ := randomLog(t, 3, 400)
	return log
}

func killedOptions() parquet.Options {
	return parquet.Options{Compression: "zstd", RowGroupRows: 100, FileRows: 300, HeldValues: 3000, FinishRows: 1200}
}

// TestChild is run as a process of its own by TestKilled.
func TestChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		t.Skip("it is run by TestKilled")
	}
	log := killedLog(t)
	if after, err := time.ParseDuration(os.Getenv(childKill)); err == nil {
		time.AfterFunc(after, func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) })
	}
	full, _ := strconv.ParseUint(os.Getenv(childFull), 10, 64)
	if full > 0 {
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: full, Max: full}); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	err := extract(t, log, &parquet.Output{Dir: dir, Options: killedOptions()})
	if full > 0 && errors.Is(err, syscall.EFBIG) {
		t.Skip("the disk is full, as the test wants")
	}
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("took %d\n", time.Since(begin))
}

// child replays in a process that kills itself after a time, if it is not 0. It reports how
// long the replay took, or false if the process was killed.
func child(t *testing.T, dir string, kill time.Duration) (time.Duration, bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	if kill > 0 {
		cmd.Env = append(cmd.Env, childKill+"="+kill.String())
	}
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return 0, false
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, after, _ := strings.Cut(string(out), "took ")
	line, _, _ := strings.Cut(after, "\n")
	took, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return time.Duration(took), true
}

// contents returns the hash of each file in a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = fmt.Sprintf("%x", sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func compareContents(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s is %q, want %q", name, got[name], want[name])
		}
	}
	for name := range got {
		if _, known := want[name]; !known {
			t.Errorf("%s is there, which one replay does not write", name)
		}
	}
}

// Processes that are killed at 50 random places, and a last one that is not, together write the same
// files as one process.
func TestKilled(t *testing.T) {
	const (
		kills = 50
		most  = 10 // maximum number of kills for a directory, because each replay takes some time, however little is left
	)
	root := t.TempDir()
	begin := time.Now()
	whole := filepath.Join(root, "whole")
	took, _ := child(t, whole, 0)
	want := contents(t, whole)
	if len(want) < 30 {
		t.Fatalf("%d files are too few to be killed between", len(want))
	}
	random := rand.New(rand.NewPCG(uint64(begin.UnixNano()), 0))
	killed, finished := 0, 0
	for killed < kills && time.Since(begin) < time.Minute {
		dir := filepath.Join(root, strconv.Itoa(finished))
		for n := range most + 1 {
			kill := 1 + time.Duration(random.Int64N(int64(took)))
			if n == most {
				kill = 0
			}
			if _, done := child(t, dir, kill); done {
				break
			}
			killed++
		}
		finished++
		compareContents(t, contents(t, dir), want)
		if t.Failed() {
			t.Fatalf("%s differs", dir)
		}
	}
	t.Logf("%d processes killed on the way to %d directories of %d files", killed, finished, len(want))
	if killed < kills/5 {
		t.Errorf("%d processes were killed in a minute, want %d", killed, kills)
	}
}

// If the disk is full, the error says so, and finished files stay. A later replay continues.
func TestFull(t *testing.T) {
	root := t.TempDir()
	whole, dir := filepath.Join(root, "whole"), filepath.Join(root, "dir")
	child(t, whole, 0)
	want := contents(t, whole)
	log := killedLog(t)
	for _, limit := range []int64{9000, 10_000, 100} { // some files are smaller
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$", "-test.v")
		cmd.Env = append(os.Environ(), childDir+"="+dir, childFull+"="+strconv.FormatInt(limit, 10))
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "the disk is full") {
			t.Fatalf("with files of %d bytes: %v\n%s", limit, err, out)
		}
		v, faults := verified(t, dir, log)
		t.Logf("with files of %d bytes, %d files are left", limit, v.Files)
		if len(faults) > 0 {
			t.Errorf("with files of %d bytes, %d files are left: %q", limit, v.Files, faults)
		}
		for name := range contents(t, dir) {
			if strings.HasSuffix(name, manifest.Temporary) && !strings.HasPrefix(name, "/"+manifest.Name) {
				t.Errorf("with files of %d bytes, %s is left", limit, name)
			}
		}
	}
	child(t, dir, 0)
	compareContents(t, contents(t, dir), want)
}

// A directory that was written in parts has the same rows as one that was written at once. It has no
// file that its manifest does not name.
func TestContinued(t *testing.T) {
	log, frames := randomLog(t, 4, 600)
	dir := filepath.Join(t.TempDir(), "out")
	topic := log.topic
	write := func(from, end int64, fail error) error {
		output := &parquet.Output{Dir: dir, Options: killedOptions()}
		return extractRange(t, log, output, topic, bus.Range{Partition: 0, From: from, End: end}, fail)
	}
	failure := errors.New("stopped")
	if err := write(0, 200, failure); !errors.Is(err, failure) {
		t.Fatal(err)
	}
	if _, faults := verified(t, dir, log); len(faults) > 0 {
		t.Errorf("a replay that was stopped leaves %q", faults)
	}
	for _, end := range []int64{100, 220, 220, 150, int64(len(log.partitions[0]))} {
		if err := write(0, end, nil); err != nil {
			t.Fatal(err)
		}
	}
	output := &parquet.Output{Dir: dir, Options: killedOptions()}
	if err := extract(t, log, output); err != nil {
		t.Fatal(err)
	}
	var readings, rows int64
	for _, f := range frames {
		readings += int64(len(f.Seeds))
	}
	named := map[string]bool{"/_oona.json": true, "/states.parquet": true, "/producers.parquet": true}
	for _, p := range output.Manifest().Topics[0].Partitions {
		for _, f := range p.Files {
			rows += f.Rows
			named["/"+f.Name] = true
		}
	}
	if rows != readings {
		t.Errorf("%d rows, want %d", rows, readings)
	}
	for name := range contents(t, dir) {
		if !named[name] {
			t.Errorf("%s is in no manifest", name)
		}
	}
	if err := write(int64(len(log.partitions[0]))+1, 1000, nil); !errors.Is(err, parquet.ErrGap) {
		t.Errorf("a range after a gap: %v, want ErrGap", err)
	}
	other := killedOptions()
	other.Selection.Layers = []oona.LayerID{"enc.0"}
	if err := extract(t, log, &parquet.Output{Dir: dir, Options: other}); !errors.Is(err, parquet.ErrOptions) {
		t.Errorf("other options: %v, want ErrOptions", err)
	}
}

// A directory with other files is refused, because tools would read them together with the files of the
// replay.
func TestForeignDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "other.parquet"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	log, _ := randomLog(t, 5, 10)
	if err := extract(t, log, &parquet.Output{Dir: dir, Options: killedOptions()}); !errors.Is(err, parquet.ErrForeign) {
		t.Errorf("%v, want ErrForeign", err)
	}
}
