package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// limitsOf returns the limits of a topic whose partitions have a configuration.
func limitsOf(change func(*windows.Config)) (*windows.Limits, windows.Config) {
	cfg := windows.DefaultConfig()
	cfg.Generation = 1
	if change != nil {
		change(&cfg)
	}
	return windows.NewLimits([][]windows.Configuration{{{Config: cfg}}}), cfg
}

// observed returns a change of a frame: it is observed some time from now.
func observed(ahead time.Duration) func(*oona.Frame) {
	return func(f *oona.Frame) { f.ObservedAt = oona.MicrosOf(time.Now().Add(ahead)) }
}

// knowing returns a stage that knows the default limits.
func knowing(t *testing.T, onBus bus.Publisher, change func(*Config)) *Stage {
	t.Helper()
	s := newStage(t, onBus, change)
	l, _ := limitsOf(nil)
	s.SetLimits(l)
	return s
}

func asideOf(t *testing.T, w *httptest.ResponseRecorder) (accepted int, aside []asideAnswer) {
	t.Helper()
	var said struct {
		Accepted int
		Aside    []asideAnswer
	}
	if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return said.Accepted, said.Aside
}

// Frames that will be put aside are accepted, published, counted, and named in the answer.
func TestAside(t *testing.T) {
	onBus := newBus(t)
	s := knowing(t, onBus, nil)
	now := observed(0)
	w := post(s, mediaAvro, frames(now, observed(-25*time.Hour), observed(2*time.Minute), now, observed(-24*time.Hour-3*time.Second), observed(-24*time.Hour+3*time.Second)))
	accepted, aside := asideOf(t, w)
	if w.Code != http.StatusOK || accepted != 6 || len(aside) != 2 ||
		aside[0].Reason != "stale" || aside[0].Frames != 2 || aside[0].First != 1 || aside[0].Detail == "" ||
		aside[1].Reason != "future" || aside[1].Frames != 1 || aside[1].First != 2 || aside[1].Detail == "" {
		t.Errorf("the answer is %d %s", w.Code, w.Body)
	}
	if _, messages := onBus.published(t); len(messages) != 6 {
		t.Errorf("%d frames are on the bus", len(messages))
	}
	for reason, want := range map[string]float64{"stale": 2, "future": 1, "metrics": 0, "seeds": 0, "size": 0} {
		if got := testutil.ToFloat64(s.counts.aside.WithLabelValues(reason)); got != want {
			t.Errorf("%g frames are counted as %s, want %g", got, reason, want)
		}
	}
	if w := post(s, mediaAvro, frames(now)); w.Body.String() != "{\"accepted\":1}\n" {
		t.Errorf("the answer to a good frame is %s", w.Body)
	}
}

// Limits on the content of frames.
func TestAsideByContent(t *testing.T) {
	onBus := newBus(t)
	s := newStage(t, onBus, func(c *Config) { c.MaxMetrics, c.MaxTensors = 100, 2000 })
	now := observed(0)
	size := func(f *oona.Frame) {
		now(f)
		manyMetrics(65)(f)
	}
	// Aggregators have this limit whatever the windows are.
	if _, aside := asideOf(t, post(s, mediaAvro, frames(now, size))); len(aside) != 1 || aside[0].Reason != "size" || aside[0].First != 1 {
		t.Errorf("of a large frame the answer says %+v", aside)
	}
	l, _ := limitsOf(func(c *windows.Config) { c.MaxMetrics, c.MaxSeeds = 1, 4 })
	s.SetLimits(l)
	seeds := func(f *oona.Frame) {
		now(f)
		manySeeds(5)(f)
		manyMetrics(1)(f)
	}
	if _, aside := asideOf(t, post(s, mediaAvro, frames(now, seeds, size))); len(aside) != 3 || aside[0].Reason != "metrics" || aside[1].Reason != "seeds" || aside[2].Reason != "size" {
		t.Errorf("of frames beyond caps the answer says %+v", aside)
	}
}

// A strict request with a frame that will be put aside is refused, and nothing is published.
func TestStrict(t *testing.T) {
	for _, c := range []struct {
		name   string
		prefer []string
		flag   bool
		strict bool
		asked  bool
	}{
		{"nothing is said", nil, false, false, false},
		{"the header", []string{"handling=strict"}, false, true, true},
		{"the header, written in another way", []string{`respond-async, Handling = "STRICT"; x=y, handling=lenient`}, false, true, true},
		{"in the second header", []string{"wait=10", "handling=strict"}, false, true, true},
		{"lenient", []string{"handling=lenient, handling=strict"}, false, false, false},
		{"another preference", []string{"return=strict, xhandling=strict"}, false, false, false},
		{"quoted", []string{`handling="strict"`}, false, true, true},
		{"within a quoted string", []string{`note="a, handling=strict"`}, false, false, false},
		{"within a quoted parameter", []string{`note; x="a, handling=strict, b"`}, false, false, false},
		{"after an escaped quote", []string{`note="a\", handling=strict"`}, false, false, false},
		{"after a quoted string", []string{`note="a, \"b\\", handling=strict`}, false, true, true},
		{"quoted with more", []string{`handling="strict;x"`}, false, false, false},
		{"in a string that does not end", []string{`note="a, handling=strict`}, false, false, false},
		{"the flag", nil, true, true, false},
		{"the flag, and lenient", []string{"handling=lenient"}, true, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBus := newBus(t)
			s := knowing(t, onBus, func(cfg *Config) { cfg.Strict = c.flag })
			send := func(change func(*oona.Frame)) *httptest.ResponseRecorder {
				r := httptest.NewRequest(http.MethodPost, framesPath, bytes.NewReader(frames(observed(0), change)))
				r.Header.Set("Content-Type", mediaAvro)
				r.Header["Prefer"] = c.prefer
				w := httptest.NewRecorder()
				s.Handler().ServeHTTP(w, r)
				if applied := w.Header().Get("Preference-Applied"); (applied == "handling=strict") != c.asked {
					t.Errorf("Preference-Applied is %q", applied)
				}
				return w
			}
			w := send(observed(-25 * time.Hour))
			if !c.strict {
				if w.Code != http.StatusOK {
					t.Errorf("answered %d %s", w.Code, w.Body)
				}
				return
			}
			p := decodeProblem(t, w)
			if p.Status != http.StatusBadRequest || p.Type != "urn:oona:problem:stale" || p.Frame == nil || *p.Frame != 1 || p.Field != "observed_at" {
				t.Errorf("answered %d %s", w.Code, w.Body)
			}
			if calls, _ := onBus.published(t); calls != 0 {
				t.Errorf("%d calls of Publish", calls)
			}
			if w := send(observed(-23 * time.Hour)); w.Code != http.StatusOK || testutil.ToFloat64(s.counts.aside.WithLabelValues("stale")) != 0 {
				t.Errorf("a good request is answered %d %s", w.Code, w.Body)
			}
		})
	}
}

// Without limits nothing is judged, and a client that asks to be strict is not told that it
// was heard.
func TestUnknownLimits(t *testing.T) {
	s := newStage(t, newBus(t), nil)
	gauge := s.judge.limitsGauge()
	old := frames(observed(-1000 * time.Hour))
	if w := post(s, mediaAvro, old, "Prefer", "handling=strict"); w.Code != http.StatusOK || w.Header().Get("Preference-Applied") != "" || w.Body.String() != "{\"accepted\":1}\n" || testutil.ToFloat64(gauge) != 0 {
		t.Errorf("answered %d %s, %v", w.Code, w.Body, w.Header())
	}
	l, _ := limitsOf(nil)
	if s.SetLimits(l); testutil.ToFloat64(gauge) != 1 {
		t.Error("the gauge does not know limits")
	}
	s.SetLimits(nil)
	if w := post(s, mediaAvro, old, "Prefer", "handling=strict"); w.Code != http.StatusOK || testutil.ToFloat64(gauge) != 0 {
		t.Errorf("after the limits were forgotten: %d %s", w.Code, w.Body)
	}
}

// In the spool, a frame of the future may become one of the present. An old one stays old.
func TestAsideInTheSpool(t *testing.T) {
	s := newSpooling(t)
	s.begin(nil)
	defer s.end()
	l, _ := limitsOf(nil)
	s.SetLimits(l)
	s.leave(bus.ErrUnreachable)
	w := post(s.Stage, mediaAvro, frames(observed(time.Hour), observed(-25*time.Hour)))
	accepted, aside := asideOf(t, w)
	if w.Code != http.StatusAccepted || accepted != 2 || len(aside) != 1 || aside[0].Reason != "stale" || aside[0].First != 1 {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	s.down.Store(nil)
	s.drained()
}

// The same holds if the bus is slow.
func TestAsideOnASlowBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1000 * time.Hour) // the clock of this test begins in the year 2000, and frames may not be older
		onBus := newBus(t)
		s := knowing(t, onBus, nil)
		for wait, want := range map[time.Duration]int{0: 2, 900 * time.Millisecond: 2, 1100 * time.Millisecond: 1} {
			onBus.before = func(string, []*message.Message) error {
				time.Sleep(wait)
				return nil
			}
			if _, aside := asideOf(t, post(s, mediaAvro, frames(observed(-25*time.Hour), observed(time.Hour)))); len(aside) != want || aside[0].Reason != "stale" {
				t.Errorf("after %s the answer says %+v", wait, aside)
			}
		}
	})
}

// Frames of the raw topic are counted. There is nobody to refuse them to.
func TestAsideFromTheRawTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1000 * time.Hour)
		onBus := newBus(t)
		p := startRaw(t, onBus, func(c *Config) { c.Strict = true })
		defer p.end()
		l, _ := limitsOf(nil)
		p.stage.SetLimits(l)
		p.send(string(frames(observed(0), observed(-25*time.Hour))), "content-type", mediaAvro)
		synctest.Wait()
		if _, messages := onBus.published(t); len(messages) != 2 || testutil.ToFloat64(p.stage.counts.aside.WithLabelValues("stale")) != 1 {
			t.Errorf("%d frames are on the bus", len(messages))
		}
	})
}

// What is said of a frame is right if it was just beyond the limit when it was judged, and does
// not name a limit if that is not known any more.
func TestExplanationAfterAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1000 * time.Hour)
		s := knowing(t, newBus(t), nil)
		f := goodFrame(1)
		observed(windows.DefaultConfig().MaxSkew + clockSlack + time.Microsecond)(f)
		if why := s.judge.Judge(f); why != asideFuture {
			t.Fatalf("it is %q", why)
		}
		time.Sleep(2 * time.Microsecond)
		field, known := s.judge.Explain(f, asideFuture)
		s.SetLimits(nil)
		fieldToo, unknown := s.judge.Explain(f, asideFuture)
		if limit := windows.DefaultConfig().MaxSkew.String(); field != "observed_at" || fieldToo != field || !strings.Contains(known, limit) || strings.Contains(unknown, "0s") {
			t.Errorf("%s: %q; and of limits that are not known, %s: %q", field, known, fieldToo, unknown)
		}
	})
}

// asideRun posts random frames to a stage, and folds what comes to the bus.
type asideRun struct {
	t      *testing.T
	random *rand.Rand
	stage  *Stage
	bus    *testBus
	engine *windows.Engine
	cfg    windows.Config
	counts map[string]int
	posted int64
}

func (a *asideRun) frame() *oona.Frame {
	f := goodFrame(a.posted)
	a.posted++
	f.Layer = oona.LayerID(fmt.Sprint("l", a.posted))
	manySeeds(1 + a.random.IntN(6))(f)
	manyMetrics(1 + a.random.IntN(4))(f)
	near := time.Duration(a.random.Int64N(int64(12*time.Second))) - 6*time.Second
	switch a.random.IntN(5) {
	case 0:
		near += a.cfg.MaxSkew
	case 1:
		near -= a.cfg.MaxDelay
	case 2:
		near -= a.cfg.MaxDelay / 2
	}
	observed(near)(f)
	return f
}

// request posts some frames, folds them with append times near ingest's clock, and compares.
func (a *asideRun) request() {
	body := []byte(nil)
	said := make([]intake.Reason, 1+a.random.IntN(6))
	for i := range said {
		f := a.frame()
		said[i] = a.stage.judge.Judge(f)
		body = avro.AppendFrame(body, f)
	}
	before := len(a.bus.on(a.t, rawTopics.SeedMetrics))
	_, aside := asideOf(a.t, post(a.stage, mediaAvro, body))
	did := make([]windows.Reason, len(said))
	byReason := make(map[string]int)
	for i, msg := range a.bus.on(a.t, rawTopics.SeedMetrics)[before:] {
		did[i] = a.fold(msg, int64(before+i)+1)
		a.counts[string(said[i])+" "+string(did[i])]++
		why := windows.Reason(said[i])
		late := did[i] == windows.ReasonLate && (why == windows.ReasonMetrics || why == windows.ReasonSeeds)
		if why != "" && did[i] != why && !late {
			a.t.Fatalf("ingest says %q, and the engine %q", why, did[i])
		}
		if said[i] != "" {
			byReason[string(said[i])]++
		}
	}
	for _, s := range aside {
		if string(said[s.First]) != s.Reason || byReason[s.Reason] != s.Frames {
			a.t.Fatalf("the answer says %+v, and of the frames %v", s, said)
		}
		delete(byReason, s.Reason)
	}
	if len(byReason) > 0 {
		a.t.Fatalf("the answer %+v lacks %v", aside, byReason)
	}
}

func (a *asideRun) fold(msg *message.Message, offset int64) windows.Reason {
	var d avro.FrameDecoder
	var f oona.Frame
	if _, err := d.Decode(msg.Payload, &f); err != nil {
		a.t.Fatal(err)
	}
	at, err := bus.PositionOf(msg)
	if err != nil {
		a.t.Fatal(err)
	}
	drift := oona.Micros(a.random.Int64N(4e6+1) - 2e6)
	return a.engine.Fold(windows.Record{Offset: offset, AppendedAt: at.Appended + drift, Path: "ingest-1", Frame: &f}, func(*oona.Rollup) {}).Reason
}

// Whatever ingest says of a frame, the engine does, if the broker's clock is within two
// seconds of ingest's.
func TestAsideAgreesWithTheEngine(t *testing.T) {
	counts := make(map[string]int)
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(1000 * time.Hour)
			limits, cfg := limitsOf(func(c *windows.Config) { c.MaxMetrics, c.MaxSeeds, c.MaxDelay = 3, 5, time.Hour })
			engine, err := windows.New(cfg, windows.Always(func(string) oona.Metric { return oona.Metric{} }))
			if err != nil {
				t.Fatal(err)
			}
			a := &asideRun{t: t, random: rand.New(rand.NewPCG(seed, 2)), bus: newBus(t), engine: engine, cfg: cfg, counts: counts}
			a.stage = newStage(t, a.bus, nil)
			a.stage.SetLimits(limits)
			for range 40 {
				time.Sleep(time.Duration(a.random.Int64N(int64(5 * time.Second))))
				a.request()
			}
		})
	}
	for _, must := range []string{"stale stale", "future future", "metrics metrics", "seeds seeds", " stale", " future", " "} {
		if counts[must] == 0 {
			t.Errorf("%q did not occur; all are %v", must, counts)
		}
	}
}

// To judge frames takes no allocation.
func TestAllocationsOfJudging(t *testing.T) {
	s := newStage(t, &acknowledging{}, nil)
	body := frames(observed(0), observed(0))
	allocations := func() float64 { return testing.AllocsPerRun(200, func() { post(s, mediaAvro, body) }) }
	without := allocations()
	l, _ := limitsOf(nil)
	s.SetLimits(l)
	if with := allocations(); with > without+1 {
		t.Errorf("%g allocations, and %g without limits", with, without)
	}
}
