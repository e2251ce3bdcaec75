package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Component is a part of a process that runs until its context ends.
type Component struct {
	Name string
	Run  func(context.Context) error
}

// RunAll runs the components at once until ctx ends or one of them returns,
// with or without an error. It then cancels the others' context and waits for
// them, at most for drain. The first error wins; being cancelled is none. An
// error for the deadline names who has not ended: their goroutines are lost,
// and the process should exit.
func RunAll(ctx context.Context, drain time.Duration, components ...Component) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	type end struct {
		name string
		err  error
	}
	ends := make(chan end, len(components))
	running := make([]string, 0, len(components))
	for _, c := range components {
		running = append(running, c.Name)
		go func() { ends <- end{c.Name, c.Run(inner)} }()
	}

	var first error
	note := func(e end) {
		running = slices.DeleteFunc(running, func(name string) bool { return name == e.name })
		cancelled := inner.Err() != nil && errors.Is(e.err, context.Canceled)
		if first == nil && e.err != nil && !cancelled {
			first = fmt.Errorf("%s: %w", e.name, e.err)
		}
		cancel()
	}
	if len(running) > 0 {
		select {
		case e := <-ends:
			note(e)
		case <-ctx.Done():
		}
	}
	deadline := time.NewTimer(drain)
	defer deadline.Stop()
	for len(running) > 0 {
		select {
		case e := <-ends:
			note(e)
		case <-deadline.C:
			late := fmt.Errorf("not ended %s after the order to stop: %s", drain, strings.Join(running, ", "))
			return errors.Join(first, late)
		}
	}
	return first
}
