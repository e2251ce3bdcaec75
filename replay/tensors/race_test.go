package tensors_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/claimcheck/claimchecktest"
	"github.com/morphogenetic/oona/claimcheck/embedded"
	"github.com/morphogenetic/oona/replay/tensors"
)

// racing has trainers that repeatedly send frames with a few tensors, as through ingest. At the same
// time, records expire, tensors become old, and collections run.
type racing struct {
	*collecting
	// inHand is locked for reading from the moment at which ingest looks for a tensor until its
	// record is on the bus. A collection settles by locking it for writing.
	inHand sync.RWMutex
	files  string // directory of the objects
}

// takeFrame handles a frame as ingest does. The frame has a tensor or its claim.
func (r *racing) takeFrame(ctx context.Context, content string, claimed bool) error {
	r.inHand.RLock()
	defer r.inHand.RUnlock()
	claim := r.store.Claim([]byte(content))
	err := claimcheck.ErrNotFound
	if claimed {
		err = r.store.Confirm(ctx, claim)
	}
	if errors.Is(err, claimcheck.ErrNotFound) { // the trainer is told, and sends it
		_, _, err = r.store.CheckIn(ctx, strings.NewReader(content))
	}
	if err != nil {
		return err
	}
	time.Sleep(time.Duration(rand.Int64N(int64(2 * time.Millisecond))))
	return r.out.Publish(ctx, r.topics.SeedMetrics, bus.NewMessage(encoded(content), bus.Target{Key: []byte("k")}))
}

// forget makes a tensor look as if it had been sent a month ago.
func (r *racing) forget(content string) error {
	old := time.Now().Add(-aMonth)
	err := os.Chtimes(filepath.Join(r.files, filepath.FromSlash(claimcheck.Key(digestOf(content)))), old, old)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// expire removes all records but the last ones, as retention does.
func (r *racing) expire(ctx context.Context) error {
	extents, err := r.bus.Extents(ctx, r.topics.SeedMetrics)
	if err != nil {
		return err
	}
	for p, held := range extents[r.topics.SeedMetrics] {
		if err := r.bus.Trim(r.topics.SeedMetrics, int32(p), max(held.Start, held.End-2)); err != nil {
			return err
		}
	}
	return nil
}

// collect runs a collection.
func (r *racing) collect(ctx context.Context) (tensors.Result, error) {
	references := tensors.NewReferences()
	reading := tensors.Reading{Log: r.bus, Into: references}
	read := func(ctx context.Context) error { return reading.Topic(ctx, r.topics.SeedMetrics, true) }
	c := &tensors.Collection{Store: r.store, References: references, ReadOn: func(ctx context.Context) error {
		r.inHand.Lock() // waits until all records of tensors that were looked for are on the bus
		defer r.inHand.Unlock()
		return read(ctx)
	}}
	if err := read(ctx); err != nil {
		return tensors.Result{}, err
	}
	p, err := c.Plan(ctx, time.Now().Add(-2*claimcheck.RenewAfter))
	if err != nil {
		return tensors.Result{}, err
	}
	return c.Run(ctx, p)
}

// In whichever order the calls happen, the store has the tensors to which records on the bus refer.
func testRace(t *testing.T, r *racing) {
	contents := make([]string, 12)
	for i := range contents {
		contents[i] = fmt.Sprintf("tensor %d", i)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	began := time.Now()
	var trainers sync.WaitGroup
	for range 4 {
		trainers.Go(func() {
			for ctx.Err() == nil {
				content := contents[rand.IntN(len(contents))]
				err := r.takeFrame(t.Context(), content, rand.IntN(2) == 0)
				if err == nil && rand.IntN(2) == 0 {
					err = r.forget(content)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	var sum tensors.Result
	met := func() bool { return sum.Deleted.Objects > 0 && sum.Back.Objects > 0 }
	for time.Since(began) < 3*time.Second || !met() && time.Since(began) < 5*time.Minute {
		done, err := r.collect(t.Context())
		if err = errors.Join(err, r.expire(t.Context())); err != nil {
			t.Fatal(err)
		}
		sum.Deleted.Objects += done.Deleted.Objects
		sum.Back.Objects += done.Back.Objects
	}
	stop()
	trainers.Wait()
	t.Logf("deleted %d, put back %d", sum.Deleted.Objects, sum.Back.Objects)
	if !met() {
		t.Errorf("nothing has met: %+v", sum)
	}
	if err := r.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	for digest, use := range r.references.Uses {
		if o, err := r.store.Stat(t.Context(), digest); err != nil {
			t.Errorf("%d records refer to a tensor: %v", use.Records, err)
		} else if err := r.store.Verify(t.Context(), o); err != nil {
			t.Error(err)
		}
	}
}

func TestRace(t *testing.T) {
	t.Run("directory", func(t *testing.T) {
		t.Parallel()
		c := newCollecting(t)
		testRace(t, &racing{collecting: c, files: c.dir})
	})
	t.Run("S3", func(t *testing.T) {
		t.Parallel()
		c := newCollecting(t)
		server := claimchecktest.Server{AccessKeyID: "oona", SecretAccessKey: "secret-of-a-test"}
		handler, err := embedded.Handler(embedded.Options{Directory: c.dir, Bucket: "kasmina-tensors", AccessKeyID: server.AccessKeyID, SecretAccessKey: server.SecretAccessKey})
		if err != nil {
			t.Fatal(err)
		}
		listening := httptest.NewServer(handler)
		t.Cleanup(listening.Close)
		server.URL = listening.URL
		if c.store, err = claimcheck.OpenS3(server.Config(t), "kasmina-tensors", 1<<20); err != nil {
			t.Fatal(err)
		}
		testRace(t, &racing{collecting: c, files: filepath.Join(c.dir, "kasmina-tensors")})
	})
}
