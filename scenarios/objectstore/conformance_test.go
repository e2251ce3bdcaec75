package objectstore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/claimcheck/claimchecktest"
)

func TestVersitygw(t *testing.T) {
	g := startGateway(t, filepath.Join(t.TempDir(), "objects"))
	buckets := 0
	claimchecktest.Run(t, func(t *testing.T) claimchecktest.Place {
		buckets++
		bucket := fmt.Sprintf("tensors-%d", buckets)
		g.CreateBucket(t, bucket)
		place := claimchecktest.S3(t, g.Server, bucket)
		place.Age = func(t *testing.T, key string, modified time.Time) {
			t.Helper()
			if err := os.Chtimes(filepath.Join(g.dir, bucket, filepath.FromSlash(key)), modified, modified); err != nil {
				t.Fatal(err)
			}
		}
		return place
	})
}

// The store lists more objects than an answer of S3 has, and moves and deletes more than
// a request can.
func TestPages(t *testing.T) {
	g := startGateway(t, filepath.Join(t.TempDir(), "objects"))
	const bucket, many = "tensors", 1_050
	g.CreateBucket(t, bucket)
	store, err := claimcheck.OpenS3(g.Config(t), bucket, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for i := range many {
		group.Go(func() error {
			_, _, err := store.CheckIn(ctx, strings.NewReader(strconv.Itoa(i)))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	list := func(each func(context.Context, func(claimcheck.Object) error) error) (all []claimcheck.Object) {
		t.Helper()
		if err := each(t.Context(), func(o claimcheck.Object) error { all = append(all, o); return nil }); err != nil {
			t.Fatal(err)
		}
		return all
	}
	all := list(store.Each)
	if len(all) != many {
		t.Errorf("%d objects are listed, want %d", len(all), many)
	}
	moved, err := store.SetAside(t.Context(), all, time.Now().Add(time.Hour))
	if err != nil || len(moved) != many || len(list(store.Each)) != 0 || len(list(store.Aside)) != many {
		t.Errorf("%d were set aside: %v", len(moved), err)
	}
	if err := store.Discard(t.Context(), moved); err != nil || len(list(store.Aside)) != 0 {
		t.Errorf("discard: %v", err)
	}
}
