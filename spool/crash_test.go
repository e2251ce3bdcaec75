package spool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/morphogenetic/oona/spool"
)

// life takes a spool through appends, reads, failures and crashes. It has a model of the spool:
// which records were acknowledged, and which are done.
type life struct {
	random *rand.Rand
	fs     *memory
	s      *spool.Spool

	acknowledged []int // records that were acknowledged and are not done, in order
	uncertain    map[int]bool
	group        map[int]int // for each record, the first one of those that were appended at the same time, which may be in any order
	next         int         // number of the next record
	crashes      int
	failures     int
}

// errLost says that the spool has broken its promise.
var errLost = errors.New("the promise is broken")

// step does a random operation. It returns an error that wraps errLost if an acknowledged record is
// missing or out of order, or if a record was never appended.
func (l *life) step(t *testing.T) error {
	switch n := l.random.IntN(20); {
	case n < 10:
		l.append(t)
	case n < 13:
		return l.read(t, l.random.IntN(10))
	case n < 15:
		l.failNext()
	case n < 17:
		return l.restart(t)
	default:
		return l.crash(t)
	}
	return nil
}

// append appends some records at once.
func (l *life) append(t *testing.T) {
	t.Helper()
	var writers sync.WaitGroup
	results := make([]error, 1+l.random.IntN(3))
	first := l.next
	l.next += len(results)
	for i := range results {
		b := body(first + i)
		l.group[first+i] = first
		writers.Go(func() { results[i] = l.s.Append(context.WithoutCancel(t.Context()), keysOf(b), b) })
		if l.random.IntN(2) == 0 {
			writers.Wait()
		}
	}
	writers.Wait()
	for i, err := range results {
		if err == nil {
			l.acknowledged = append(l.acknowledged, first+i)
		} else {
			l.failures++
			l.uncertain[first+i] = true
		}
	}
}

// failNext makes a call of the file system fail once.
func (l *life) failNext() {
	calls := []string{"write", "sync", "create", "rename", "syncdir", "free"}
	call := calls[l.random.IntN(len(calls))]
	failure := []error{syscall.EIO, syscall.ENOSPC, errShort}[l.random.IntN(3)]
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	l.fs.fail = func(c, _ string) error {
		if c != call {
			return nil
		}
		l.fs.fail = nil
		return failure
	}
}

// read reads some records, and calls Done for them.
func (l *life) read(t *testing.T, n int) error {
	t.Helper()
	got, last := l.all(t, n)
	if err := l.compare(got, false); err != nil {
		return err
	}
	if len(got) > 0 {
		_ = l.s.Done(last) // if the number cannot be saved, records are only returned again
	}
	return nil
}

func (l *life) all(t *testing.T, most int) (got []int, last uint64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for len(got) < most {
		r, err := l.s.Next(ctx)
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var i int
		if _, err := fmt.Sscanf(string(r.Body[2:]), "record %d", &i); err != nil || !bytes.Equal(r.Body, body(i)) {
			t.Fatalf("a record is %q", r.Body)
		}
		got, last = append(got, i), r.Sequence
	}
	return got, last
}

// compare compares what was read with the model. The records of a group of appends may be in
// any order, and uncertain ones may be among them.
func (l *life) compare(got []int, everything bool) error {
	seen := make(map[int]bool)
	for _, i := range got {
		if seen[i] {
			return fmt.Errorf("%w: record %d came twice", errLost, i)
		}
		seen[i] = true
	}
	var certain []int
	for _, i := range got {
		if !l.uncertain[i] {
			certain = append(certain, i)
		}
	}
	if everything && len(certain) != len(l.acknowledged) || len(certain) > len(l.acknowledged) {
		return fmt.Errorf("%w: %v were read, %v are acknowledged", errLost, certain, l.acknowledged)
	}
	for n, i := range certain {
		if !slices.Contains(l.acknowledged, i) || n > 0 && l.group[i] < l.group[certain[n-1]] {
			return fmt.Errorf("%w: %v were read, %v are acknowledged", errLost, certain, l.acknowledged)
		}
	}
	for n, i := range l.acknowledged {
		// No record of an earlier group is missing.
		if n < len(certain) && l.group[i] > l.group[certain[len(certain)-1]] {
			return fmt.Errorf("%w: %v were read, %v are acknowledged", errLost, certain, l.acknowledged)
		}
	}
	l.acknowledged = slices.DeleteFunc(l.acknowledged, func(i int) bool { return slices.Contains(certain, i) })
	return nil
}

func (l *life) restart(t *testing.T) error {
	t.Helper()
	l.fs.mu.Lock()
	l.fs.fail = nil
	l.fs.mu.Unlock()
	if err := l.s.Close(); err != nil {
		t.Fatal(err)
	}
	return l.reopen(t)
}

func (l *life) crash(t *testing.T) error {
	t.Helper()
	l.crashes++
	after := l.fs.crash(l.random)
	if err := l.s.Close(); err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, errShort) {
		t.Fatal(err)
	}
	after.unsynced, after.unnamed = l.fs.unsynced, l.fs.unnamed
	l.fs = after
	return l.reopen(t)
}

// reopen opens the spool. It returns an error if a record is missing that was acknowledged and is
// not done. Records that are done may come again.
func (l *life) reopen(t *testing.T) error {
	t.Helper()
	l.s = open(t, l.fs)
	got, _ := l.all(t, 1<<30)
	have := make(map[int]bool)
	for _, i := range got {
		have[i] = true
	}
	for _, i := range l.acknowledged {
		if !have[i] {
			return fmt.Errorf("%w: record %d is missing after a start; the spool has %v", errLost, i, got)
		}
	}
	if err := l.s.Close(); err != nil {
		t.Fatal(err)
	}
	l.s = open(t, l.fs) // to read from the beginning
	known := make(map[int]bool)
	for _, i := range l.acknowledged {
		known[i] = true
	}
	for _, i := range got {
		if !known[i] {
			l.uncertain[i] = true // it is done or was refused, and Next may return it
		}
	}
	return nil
}

func run(t *testing.T, seed uint64, mutate func(*memory)) (*life, error) {
	t.Helper()
	l := &life{random: rand.New(rand.NewPCG(seed, 1)), fs: newMemory(), uncertain: make(map[int]bool), group: make(map[int]int)}
	mutate(l.fs)
	l.s = open(t, l.fs)
	defer func() { _ = l.s.Close() }()
	for range 60 {
		if err := l.step(t); err != nil {
			return l, err
		}
	}
	return l, nil
}

// Whichever call fails and whenever the system crashes, acknowledged records are returned in order
// until they are done.
func TestCrashes(t *testing.T) {
	var crashes, failures int
	for seed := range uint64(100) {
		l, err := run(t, seed, func(*memory) {})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		crashes, failures = crashes+l.crashes, failures+l.failures
	}
	if crashes < 100 || failures < 50 {
		t.Errorf("%d crashes and %d refused records are too few for this test", crashes, failures)
	}
}

// TestCrashes fails for a spool that does not sync its files or its directory.
func TestCrashesFindAMissingSync(t *testing.T) {
	for what, mutate := range map[string]func(*memory){
		"files":     func(m *memory) { m.unsynced = true },
		"directory": func(m *memory) { m.unnamed = true },
	} {
		found := false
		for seed := uint64(0); seed < 50 && !found; seed++ {
			_, err := run(t, seed, mutate)
			found = errors.Is(err, errLost)
		}
		if !found {
			t.Errorf("no schedule of TestCrashes fails although a sync does nothing: %s", what)
		}
	}
}
