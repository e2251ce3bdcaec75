package worker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func untilCancelled(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestRunAll(t *testing.T) {
	broken := errors.New("broken")
	endsAfter := func(d time.Duration, err error) func(context.Context) error {
		return func(ctx context.Context) error {
			time.Sleep(d)
			return err
		}
	}
	for name, c := range map[string]struct {
		components []Component
		cancel     time.Duration // 0: not
		want       error
		text       string
		took       time.Duration
	}{
		"nothing to run": {},
		"one fails": {
			components: []Component{{"a", endsAfter(time.Second, broken)}, {"b", untilCancelled}},
			want:       broken, text: "a: broken", took: time.Second,
		},
		"one ends": {
			components: []Component{{"a", endsAfter(time.Second, nil)}, {"b", untilCancelled}},
			took:       time.Second,
		},
		"the first error wins": {
			components: []Component{{"a", endsAfter(2*time.Second, errors.New("second"))}, {"b", endsAfter(time.Second, broken)}},
			want:       broken, text: "b: broken", took: 2 * time.Second,
		},
		"cancelled": {
			components: []Component{{"a", untilCancelled}, {"b", untilCancelled}},
			cancel:     3 * time.Second, took: 3 * time.Second,
		},
		"fails while it drains": {
			components: []Component{{"a", func(ctx context.Context) error { <-ctx.Done(); return broken }}},
			cancel:     time.Second, want: broken, text: "a: broken", took: time.Second,
		},
		"cancelled by itself": {
			components: []Component{{"a", endsAfter(time.Second, context.Canceled)}},
			want:       context.Canceled, text: "a: context canceled", took: time.Second,
		},
		"does not end in time": {
			components: []Component{{"slow", endsAfter(time.Hour, nil)}, {"b", untilCancelled}, {"stuck", endsAfter(time.Hour, nil)}},
			cancel:     time.Second, text: "not ended 10s after the signal to stop: slow, stuck", took: 11 * time.Second,
		},
		"fails and another hangs": {
			components: []Component{{"stuck", endsAfter(time.Hour, nil)}, {"b", endsAfter(0, broken)}},
			want:       broken, text: "stop: stuck", took: 10 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.cancel > 0 {
					time.AfterFunc(c.cancel, cancel)
				}
				begin := time.Now()
				err := RunAll(ctx, 10*time.Second, c.components...)
				if (err == nil) != (c.want == nil && c.text == "") || c.want != nil && !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.text) {
					t.Errorf("error is %v, want %v with %q", err, c.want, c.text)
				}
				if took := time.Since(begin); took != c.took {
					t.Errorf("took %s, want %s", took, c.took)
				}
				time.Sleep(2 * time.Hour) // let the components that hang end
			})
		})
	}
}
