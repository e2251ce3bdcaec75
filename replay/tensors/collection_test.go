package tensors_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/replay/tensors"
)

const aMonth = 30 * 24 * time.Hour

// collecting is an installation with a tensor store in a directory.
type collecting struct {
	*installation
	dir        string
	store      *claimcheck.Store
	collection *tensors.Collection
}

func newCollecting(t *testing.T) *collecting {
	t.Helper()
	c := &collecting{installation: newInstallation(t), dir: t.TempDir()}
	var err error
	if c.store, err = claimcheck.OpenDirectory(c.dir, "kasmina-tensors", 1<<20); err != nil {
		t.Fatal(err)
	}
	c.collection = &tensors.Collection{Store: c.store, References: c.references, ReadOn: c.read, Settle: time.Minute}
	return c
}

// keep puts contents into the store, as if they had last been sent a month ago.
func (c *collecting) keep(contents ...string) {
	c.t.Helper()
	for _, content := range contents {
		c.send(content)
		old := time.Now().Add(-aMonth)
		if err := os.Chtimes(filepath.Join(c.dir, claimcheck.Key(digestOf(content))), old, old); err != nil {
			c.t.Fatal(err)
		}
	}
}

// send puts a content into the store.
func (c *collecting) send(content string) {
	c.t.Helper()
	if _, _, err := c.store.CheckIn(c.t.Context(), strings.NewReader(content)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *collecting) plan() *tensors.Plan {
	c.t.Helper()
	if err := c.read(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	p, err := c.collection.Plan(c.t.Context(), time.Now().Add(-24*time.Hour))
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// holds checks which contents the store has, and how many objects are set aside.
func (c *collecting) holds(aside int, want ...string) {
	c.t.Helper()
	got := make(map[tensors.Digest]string)
	if err := c.store.Each(c.t.Context(), func(o claimcheck.Object) error { got[o.SHA256] = "?"; return nil }); err != nil {
		c.t.Fatal(err)
	}
	for _, content := range want {
		digest := digestOf(content)
		if data, err := c.store.Bytes(c.t.Context(), c.store.Claim([]byte(content))); err != nil || string(data) != content {
			c.t.Errorf("%q: %q, error %v", content, data, err)
		}
		delete(got, digest)
	}
	if len(got) > 0 {
		c.t.Errorf("the store also has %x", slices.Collect(maps.Keys(got)))
	}
	n := 0
	if err := c.store.Aside(c.t.Context(), func(claimcheck.Object) error { n++; return nil }); err != nil || n != aside {
		c.t.Errorf("%d objects are set aside, want %d: %v", n, aside, err)
	}
}

func TestCollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCollecting(t)
		c.keep("referenced", "referenced by a dead letter", "old", "older")
		c.send("young")
		c.publish(c.topics.SeedMetrics, encoded("referenced"))
		c.publish(c.topics.SeedRawDead, append([]byte("damaged"), encoded("referenced by a dead letter")...))
		p := c.plan()
		if want := (tensors.Amount{Objects: 2, Bytes: 8}); p.Unreferenced != want || p.Store.Objects != 5 || p.Referenced.Objects != 2 || p.Young.Objects != 1 {
			t.Errorf("the plan is %+v", p)
		}
		c.holds(0, "referenced", "referenced by a dead letter", "old", "older", "young") // a plan changes nothing
		done, err := c.collection.Run(t.Context(), p)
		if want := (tensors.Amount{Objects: 2, Bytes: 8}); err != nil || done.SetAside != want || done.Deleted != want || done.Back.Objects != 0 {
			t.Errorf("done %+v, error %v", done, err)
		}
		c.holds(0, "referenced", "referenced by a dead letter", "young")
	})
}

// A frame may arrive on the bus at any moment of a collection, and refer to a tensor that was in the
// store when ingest looked for it. In the end, the tensor is in the store.
func TestFrameDuringCollection(t *testing.T) {
	for name, moment := range map[string]struct {
		aside   func(c *collecting) // called when objects are set aside
		settle  func(c *collecting) // called half of the time to settle later
		deleted int64
	}{
		"before it is set aside": {aside: func(c *collecting) { c.publish(c.topics.SeedMetrics, encoded("needed")) }, deleted: 1},
		"while it is set aside":  {settle: func(c *collecting) { c.publish(c.topics.SeedMetrics, encoded("needed")) }, deleted: 1},
		"into the raw topic":     {settle: func(c *collecting) { c.publish(c.topics.SeedRaw, append([]byte{0, 0, 0, 0, 9}, encoded("needed")...)) }, deleted: 1},
		// The tensor is sent again with the frame. It is in the store already, but old.
		"sent again before":            {aside: func(c *collecting) { c.send("needed") }, settle: func(c *collecting) { c.publish(c.topics.SeedMetrics, encoded("needed")) }, deleted: 1},
		"sent again before, for later": {aside: func(c *collecting) { c.send("needed") }, deleted: 1},
		// The tensor is not in the store, so it is stored.
		"sent again after": {settle: func(c *collecting) {
			c.send("needed")
			c.publish(c.topics.SeedMetrics, encoded("needed"))
		}, deleted: 1},
		// The trainer has sent it, and sends the frame tomorrow.
		"sent again for later": {settle: func(c *collecting) { c.send("needed") }, deleted: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCollecting(t)
				c.keep("needed", "not needed", "referenced")
				c.publish(c.topics.SeedMetrics, encoded("referenced"))
				p := c.plan()
				if p.Unreferenced.Objects != 2 {
					t.Fatalf("the plan is %+v", p)
				}
				c.collection.Store = &hooked{Store: c.store, before: func() {
					if moment.aside != nil {
						moment.aside(c)
					}
				}}
				if moment.settle != nil {
					time.AfterFunc(30*time.Second, func() { moment.settle(c) })
				}
				done, err := c.collection.Run(t.Context(), p)
				if err != nil || done.Deleted.Objects != moment.deleted {
					t.Errorf("done %+v, error %v", done, err)
				}
				c.holds(0, "needed", "referenced")
			})
		})
	}
}

// hooked calls a function before objects are set aside, and can fail.
type hooked struct {
	*claimcheck.Store
	before func()
	fail   error // error of SetAside after half of the objects
}

func (h *hooked) SetAside(ctx context.Context, all []claimcheck.Object, before time.Time) ([]claimcheck.Object, error) {
	h.before()
	if h.fail == nil {
		return h.Store.SetAside(ctx, all, before)
	}
	moved, err := h.Store.SetAside(ctx, all[:len(all)/2], before)
	return moved, errors.Join(h.fail, err)
}

// An interrupted collection leaves tensors set aside. The next one puts them back or deletes them.
func TestInterruptedCollection(t *testing.T) {
	for name, interrupt := range map[string]func(c *collecting, stop func()){
		"cancelled":              func(_ *collecting, stop func()) { time.AfterFunc(time.Second, stop) },
		"a topic cannot be read": func(c *collecting, _ func()) { c.reading.Log = failing{c.bus, c.topics.Overflow} },
		"a log has lost its end": func(c *collecting, _ func()) {
			if err := errors.Join(c.bus.LoseTail(c.topics.SeedMetrics, 0, 0), c.bus.LoseTail(c.topics.SeedMetrics, 1, 0)); err != nil {
				c.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCollecting(t)
				c.keep("needed", "not needed", "referenced")
				c.publish(c.topics.SeedMetrics, encoded("referenced"))
				p := c.plan()
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				c.collection.Store = &hooked{Store: c.store, before: func() { interrupt(c, stop) }}
				done, err := c.collection.Run(ctx, p)
				if !errors.Is(err, tensors.ErrAside) || done.Deleted.Objects != 0 || done.SetAside.Objects != 2 {
					t.Errorf("done %+v, error %v", done, err)
				}
				c.holds(2, "referenced")
				c.publish(c.topics.SeedMetrics, encoded("referenced", "needed"))

				c.references = tensors.NewReferences()
				c.reading = tensors.Reading{Log: c.bus, Into: c.references}
				next := &tensors.Collection{Store: c.store, References: c.references, ReadOn: c.read, Settle: time.Minute}
				c.collection = next
				p = c.plan()
				if p.Aside.Objects != 2 || p.Unreferenced.Objects != 0 {
					t.Errorf("the plan is %+v", p)
				}
				done, err = next.Run(t.Context(), p)
				if err != nil || done.Back.Objects != 1 || done.Deleted.Objects != 1 {
					t.Errorf("done %+v, error %v", done, err)
				}
				c.holds(0, "needed", "referenced")
			})
		})
	}
}

// If some tensors cannot be set aside, the others do not remain set aside.
func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCollecting(t)
		c.keep("a", "b", "referenced")
		c.publish(c.topics.SeedMetrics, encoded("referenced"))
		p := c.plan()
		c.collection.Store = &hooked{Store: c.store, before: func() {}, fail: claimcheck.ErrRefused}
		done, err := c.collection.Run(t.Context(), p)
		if !errors.Is(err, claimcheck.ErrRefused) || errors.Is(err, tensors.ErrAside) || done.Deleted.Objects != 1 {
			t.Errorf("done %+v, error %v", done, err)
		}
		if p := c.plan(); p.Unreferenced.Objects != 1 || p.Aside.Objects != 0 || p.Referenced.Objects != 1 {
			t.Errorf("then the plan is %+v", p)
		}
	})
}

// A collection ignores tensors that another collection sets aside in the meantime.
func TestTwoCollections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCollecting(t)
		c.keep("first", "referenced")
		c.publish(c.topics.SeedMetrics, encoded("referenced"))
		p := c.plan()
		time.AfterFunc(30*time.Second, func() {
			c.keep("second")
			o, err := c.store.Stat(context.Background(), digestOf("second"))
			if err == nil {
				_, err = c.store.SetAside(context.Background(), []claimcheck.Object{o}, time.Now())
			}
			if err != nil {
				t.Error(err)
			}
		})
		if done, err := c.collection.Run(t.Context(), p); err != nil || done.Deleted.Objects != 1 {
			t.Errorf("done %+v, error %v", done, err)
		}
		c.holds(1, "referenced")
	})
}

// Two collections at the same time do no harm, and do not both count the same tensors.
func TestCollectionsAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCollecting(t)
		c.keep("a", "b", "needed", "referenced")
		c.publish(c.topics.SeedMetrics, encoded("referenced"))
		time.AfterFunc(20*time.Second, func() { c.publish(c.topics.SeedMetrics, encoded("needed")) })
		p := c.plan()
		other := *c.collection
		other.References = tensors.NewReferences()
		otherReading := tensors.Reading{Log: c.bus, Into: other.References}
		other.ReadOn = func(ctx context.Context) error { return otherReading.Topic(ctx, c.topics.SeedMetrics, true) }
		var second tensors.Result
		ended := make(chan error, 1)
		time.AfterFunc(10*time.Second, func() {
			err := other.ReadOn(context.Background())
			var plan *tensors.Plan
			if err == nil {
				plan, err = other.Plan(context.Background(), p.Before)
			}
			if err == nil {
				second, err = other.Run(context.Background(), plan)
			}
			ended <- err
		})
		first, err := c.collection.Run(t.Context(), p)
		if err = errors.Join(err, <-ended); err != nil {
			t.Fatal(err)
		}
		if n := first.Deleted.Objects + second.Deleted.Objects; n != 2 {
			t.Errorf("deleted %d: %+v and %+v", n, first, second)
		}
		if n := first.Back.Objects + second.Back.Objects; n != 1 {
			t.Errorf("put back %d: %+v and %+v", n, first, second)
		}
		if second.Other.Objects != 3 {
			t.Errorf("%+v", second)
		}
		c.holds(0, "needed", "referenced")
	})
}

// If another collection has put back a tensor and set it aside again, only that collection handles it.
func TestSetAsideAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCollecting(t)
		c.keep("again", "referenced")
		c.publish(c.topics.SeedMetrics, encoded("referenced"))
		p := c.plan()
		time.AfterFunc(30*time.Second, func() {
			o := claimcheck.Object{SHA256: digestOf("again"), Size: 5}
			err := c.store.PutBack(context.Background(), []claimcheck.Object{o})
			if err == nil {
				_, err = c.store.SetAside(context.Background(), []claimcheck.Object{o}, time.Now())
			}
			if err != nil {
				t.Error(err)
			}
		})
		if done, err := c.collection.Run(t.Context(), p); err != nil || done.Deleted.Objects != 0 || done.Other.Objects != 1 {
			t.Errorf("done %+v, error %v", done, err)
		}
		c.holds(1, "referenced")
	})
}
