package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/replay/manifest"
)

// The variables tell a process of TestReplayProcess what to do.
const (
	processCommands = "OONA_TEST_REPLAY_COMMANDS" // command lines, as JSON
	processMount    = "OONA_TEST_REPLAY_MOUNT"    // where to mount a small file system first
)

// TestReplayProcess is run as a process of its own by other tests. It runs commands, until
// one fails.
func TestReplayProcess(t *testing.T) {
	var commands [][]string
	if err := json.Unmarshal([]byte(os.Getenv(processCommands)), &commands); err != nil {
		t.Skip("it is run by other tests")
	}
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt) // the process ends with it
	if at := os.Getenv(processMount); at != "" {
		os.Exit(onSmallDisk(ctx, at, commands))
	}
	for _, args := range commands {
		if status := newGrammar().execute(ctx, args, streams{strings.NewReader(""), os.Stdout, os.Stderr}); status != 0 {
			os.Exit(status)
		}
	}
	os.Exit(0)
}

// process returns a process that runs commands.
func process(t *testing.T, commands ...[]string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	text, err := json.Marshal(commands)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestReplayProcess$")
	cmd.Env = append(os.Environ(), processCommands+"="+string(text))
	out := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

// interrupted runs a command in a process that gets a signal after a time. It returns the
// exit status, or -1 if the process was killed.
func interrupted(t *testing.T, after time.Duration, signal os.Signal, args ...string) int {
	t.Helper()
	cmd, out := process(t, args)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Signal(signal) })
	defer timer.Stop()
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	} else if ok && exit.ExitCode() == exitFailed {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return cmd.ProcessState.ExitCode()
}

// mostSignals is how many processes of one directory get a signal at most. Each needs a time
// of its own before it goes on, so on a machine that has become slower none might end by
// itself.
const mostSignals = 10

// untilItEnds runs a command in processes that get a signal after a random time, up to took,
// until one ends by itself. It calls hit with the exit status of each of the others. It
// returns took, or how long a process took that has done all of it, if that is less.
func untilItEnds(t *testing.T, took time.Duration, signal os.Signal, hit func(status int), args ...string) time.Duration {
	t.Helper()
	for n := 0; ; n++ {
		after := rand.N(took)
		if n >= mostSignals {
			after = time.Hour
		}
		begin := time.Now()
		if status := interrupted(t, after, signal, args...); status != 0 {
			hit(status)
			continue
		}
		if n == 0 {
			took = min(took, time.Since(begin))
		}
		return took
	}
}

// contentsOf returns the hash of each file in a directory.
func contentsOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	all, err := readAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func readAll(dir string) (map[string]string, error) {
	all := make(map[string]string)
	return all, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = fmt.Sprintf("%x", sha256.Sum256(text))
		return err
	})
}

// killableArchive returns a log, the flags of an archive of many files of it, the contents
// of the archive that one process writes, and how long that takes.
func killableArchive(t *testing.T) (i *installation, command func(dir string) []string, want map[string]string, took time.Duration) {
	t.Helper()
	_, cfg := startBroker(t)
	topics := defaultNames(t)
	i = &installation{t: t, cfg: cfg, topics: topics, group: "kasmina"}
	i.applyTopics()
	i.recordMinutes(0, 20)
	i.aggregateAll()
	command = func(dir string) []string {
		return []string{"replay", "--archive", dir, "--file-size", "8KiB", "--until", "offset:100000", "--brokers", strings.Join(cfg.Brokers, ","), "--group", i.group}
	}
	dir := t.TempDir()
	begin := time.Now()
	if status := interrupted(t, time.Hour, os.Kill, command(dir)...); status != 0 {
		t.Fatalf("archive: status %d", status)
	}
	return i, command, contentsOf(t, dir), time.Since(begin)
}

func sameContents(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s is %q, and one process writes %q", name, got[name], want[name])
		}
	}
	for name := range got {
		if _, known := want[name]; !known {
			t.Errorf("%s is there, which one process does not write", name)
		}
	}
}

// Processes that are killed or interrupted at random times, and one that is not, write
// together what one process writes. After an interrupt, what is there verifies.
func TestReplayIsKilled(t *testing.T) {
	i, command, want, took := killableArchive(t)
	for _, c := range []struct {
		signal os.Signal
		status int
		times  int
	}{{os.Kill, -1, 25}, {os.Interrupt, exitInterrupted, 6}} {
		if raceDetector { // what it does is the same each time
			c.times = 2
		}
		hits := 0
		for hits < c.times {
			dir := t.TempDir()
			took = untilItEnds(t, took, c.signal, func(status int) {
				if status == -1 && c.signal == os.Interrupt {
					return // it came before the process waited for it
				}
				if status != c.status {
					t.Fatalf("after %v: status %d, want %d", c.signal, status, c.status)
				}
				hits++
				if _, err := manifest.Read(dir); err == nil {
					i.must("verify", dir)
				}
			}, command(dir)...)
			sameContents(t, contentsOf(t, dir), want)
		}
		t.Logf("%d times: %v", hits, c.signal)
	}
}

// A disk that is full leaves what verifies, and with more room the archive is as from one
// process.
func TestReplayOnAFullDisk(t *testing.T) {
	i, command, want, _ := killableArchive(t)
	at := t.TempDir()
	dir := filepath.Join(at, "run")
	cmd, out := process(t, command(dir), []string{"replay", "verify", dir, "--brokers", strings.Join(i.cfg.Brokers, ",")})
	cmd.Env = append(cmd.Env, processMount+"="+at)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	err := cmd.Run()
	if err != nil && os.Getenv("OONA_REQUIRE_NAMESPACES") == "" && strings.Contains(err.Error()+out.String(), "operation not permitted") {
		t.Skipf("SKIPPED, NOT TESTED ON A FULL DISK: file systems cannot be mounted here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, text, _ := strings.Cut(out.String(), "contents ")
	got := make(map[string]string)
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&got); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	sameContents(t, got, want)
}

// writeAnyway writes an archive without asking whether it fits, as if the estimate were too
// small.
func writeAnyway(ctx context.Context, args []string) error {
	g := newGrammar()
	parser, err := kong.New(g, worker.Options()...)
	if err != nil {
		return err
	}
	if _, err := parser.Parse(worker.Arguments(args)); err != nil {
		return err
	}
	r, to := &g.Replay.Run, streams{strings.NewReader(""), os.Stdout, os.Stderr}
	job, err := g.Replay.open(ctx, r.Source, to, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	m, err := r.manifest(job)
	if err != nil {
		return err
	}
	plan, err := r.plan(ctx, job)
	if err != nil {
		return err
	}
	before, err := r.finished()
	if err != nil {
		return err
	}
	return r.ended(r.write(ctx, job, to, m, plan), before)
}

// onSmallDisk runs an archive and its verification on a disk that is too small, and then on
// one that is larger.
func onSmallDisk(ctx context.Context, at string, commands [][]string) int {
	execute := func(args []string) int {
		return newGrammar().execute(ctx, args, streams{strings.NewReader(""), os.Stdout, os.Stderr})
	}
	fail := func(err error) int {
		fmt.Println(err)
		return exitFailed
	}
	flags := uintptr(0)
	for _, size := range []string{"60k", "200k", "300k", "64m"} {
		if err := syscall.Mount("tmpfs", at, "tmpfs", flags, "size="+size); err != nil {
			return fail(fmt.Errorf("mount: %w", err))
		}
		flags = syscall.MS_REMOUNT
		if size != "64m" {
			before, _ := readAll(at)
			if status := execute(commands[0]); status != exitFailed {
				return fail(fmt.Errorf("with %s: status %d: the files do not fit", size, status))
			}
			after, _ := readAll(at)
			delete(after, "/run/"+manifest.LockName)
			delete(before, "/run/"+manifest.LockName)
			if !maps.Equal(before, after) {
				return fail(fmt.Errorf("with %s: something was written, though the files do not fit", size))
			}
			err := writeAnyway(ctx, commands[0])
			if full, ok := errors.AsType[*diskFullError](err); !ok || full.Kept.Count < full.Written.Count {
				return fail(fmt.Errorf("with %s, without asking whether the files fit: %w", size, err))
			}
		} else if status := execute(commands[0]); status != 0 {
			return fail(fmt.Errorf("with %s: status %d", size, status))
		}
		if status := execute(commands[1]); status != 0 {
			return fail(fmt.Errorf("verify with %s: status %d", size, status))
		}
	}
	got, err := readAll(filepath.Join(at, "run"))
	if err != nil {
		return fail(err)
	}
	text, err := json.Marshal(got)
	if err != nil {
		return fail(err)
	}
	fmt.Printf("contents %s\n", text)
	return 0
}
