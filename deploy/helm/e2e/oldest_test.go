package e2e

import (
	"context"
	"sync"
	"testing"
	"time"
)

// oldest watches oona_aggregate_oldest_window_seconds of all aggregators.
type oldest struct {
	mu   sync.Mutex
	most float64
}

// watchEvery is the interval between scrapes.
const watchEvery = 250 * time.Millisecond

func (w *world) watchOldest(t *testing.T) {
	w.oldest = new(oldest)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(watchEvery)
		defer ticker.Stop()
		for ctx.Err() == nil {
			w.scrapeOldest(ctx)
			select {
			case <-ctx.Done():
			case <-ticker.C:
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
}

// scrapeOldest asks each aggregator. One that is about to end may not answer.
func (w *world) scrapeOldest(ctx context.Context) {
	pods, err := w.pods(ctx, "aggregate")
	if err != nil {
		return
	}
	for i := range pods {
		m, err := w.scrape(ctx, &pods[i])
		if err != nil {
			continue
		}
		for _, seconds := range m.values("oona_aggregate_oldest_window_seconds") {
			w.oldest.mu.Lock()
			w.oldest.most = max(w.oldest.most, seconds)
			w.oldest.mu.Unlock()
		}
	}
}

// reset returns the greatest age since the last call.
func (o *oldest) reset() float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	most := o.most
	o.most = 0
	return most
}

// peek returns the greatest age since the last call of reset.
func (o *oldest) peek() float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.most
}
