package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Component is a part of a process that runs until its context ends.
type Component struct {
	Name string
	Run  func(context.Context) error
}

// RunAll runs the components concurrently until ctx ends or one of them returns, with
// or without an error. It then cancels the context of the others and waits for them,
// for at most the time drain. It returns the first error; context.Canceled after the
// cancellation is not an error. If components have not ended after the time drain,
// the error names them, their goroutines still run, and the process should exit.
func RunAll(ctx context.Context, drain time.Duration, components ...Component) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	running := new(unfinished)
	return within(ctx, func() time.Duration { return drain }, running, func() error { return runAll(ctx, stop, running, components...) })
}

// runAll is RunAll without a time limit. It calls stop when a component returns.
func runAll(ctx context.Context, stop context.CancelFunc, running *unfinished, components ...Component) error {
	type end struct {
		name string
		err  error
	}
	ends := make(chan end, len(components))
	for _, c := range components {
		running.begin(c.Name)
		go func() { ends <- end{c.Name, c.Run(ctx)} }()
	}
	for range components {
		e := <-ends
		if ctx.Err() != nil && errors.Is(e.err, context.Canceled) {
			e.err = nil
		}
		running.end(e.name, e.err)
		stop()
	}
	return running.failed()
}

// within calls do and returns its error. When ctx ends, it waits for do at most for
// the time that drain returns. Then its error names what has not finished.
func within(ctx context.Context, drain func() time.Duration, running *unfinished, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	limit := drain()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	select {
	case err := <-done:
		return err
	case <-deadline.C:
		return errors.Join(running.failed(), running.late(limit))
	}
}

// unfinished lists what must finish before the process may exit.
type unfinished struct {
	mu    sync.Mutex
	names []string
	first error // the first error of a function that has returned
}

func (u *unfinished) begin(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.names = append(u.names, name)
}

func (u *unfinished) end(name string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if i := slices.Index(u.names, name); i >= 0 {
		u.names = slices.Delete(u.names, i, i+1)
	}
	if err != nil && u.first == nil {
		u.first = fmt.Errorf("%s: %w", name, err)
	}
}

// note records an error if it is the first.
func (u *unfinished) note(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.first == nil {
		u.first = err
	}
}

// failed returns the first error.
func (u *unfinished) failed() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.first
}

func (u *unfinished) late(drain time.Duration) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return fmt.Errorf("%w %s after the signal to stop: %s", errLate, drain, strings.Join(u.names, ", "))
}

var errLate = errors.New("not ended")
