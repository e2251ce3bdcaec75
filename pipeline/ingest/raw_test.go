package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/intake"
)

func TestRawFormsAreForwarded(t *testing.T) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	single := string(frames(nil))
	ofSeed := string(frames(func(f *oona.Frame) {
		f.Seeds, f.States = f.Seeds[:1], f.States[:1]
		for i := range f.Metrics {
			f.Metrics[i].Values = f.Metrics[i].Values[:1]
		}
	}))
	for name, form := range map[string]struct {
		value string
		want  []string
	}{
		"a frame":              {single, []string{single}},
		"a frame of one seed":  {ofSeed, []string{ofSeed}},
		"frames after another": {single + ofSeed, []string{single, ofSeed}},
		"a container":          {string(containerOf(t, []byte(single), []byte(ofSeed))), []string{single, ofSeed}},
		"JSON":                 {"\n " + goodJSON, []string{single}},
		"an array of JSON":     {"[" + goodJSON + "," + goodJSON + "]", []string{single, single}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				onBus := newBus(t)
				p := startRaw(t, onBus, nil)
				defer p.end()
				p.send(form.value, "traceparent", trace, "oona-record", "tick/1", "oona-path", "elsewhere", "$key", "x", "other", "x")
				p.settledTo(1)
				got := onBus.on(t, rawTopics.SeedMetrics)
				if dead := onBus.on(t, rawTopics.SeedRawDead); len(got) != len(form.want) || len(dead) != 0 {
					t.Fatalf("%d frames, %d dead letters", len(got), len(dead))
				}
				want := message.Metadata{oona.HeaderPath: "kasmina.telemetry.seed.raw/3", "traceparent": trace}
				for i, m := range got {
					if string(m.Payload) != form.want[i] {
						t.Errorf("frame %d is %q, want %q", i, m.Payload, form.want[i])
					}
					if fmt.Sprint(m.Metadata) != fmt.Sprint(want) || keyOf(t, m) != string(oona.Key("digits", "enc.1")) {
						t.Errorf("metadata is %q, key %q", m.Metadata, keyOf(t, m))
					}
				}
				if c := p.stage.Counts(); c.Frames != int64(len(got)) || c.Requests != 0 {
					t.Errorf("counted: %+v", c)
				}
				if n := testutil.ToFloat64(p.metrics.records.WithLabelValues(rawForwarded)); n != 1 {
					t.Errorf("%v records are counted", n)
				}
			})
		})
	}
}

// A bad record becomes a dead letter as a whole. The records around it are forwarded.
func TestRawDeadLetters(t *testing.T) {
	good := string(frames(nil))
	body := good[10:]
	for name, bad := range map[string]struct {
		value   string
		headers []string
		reason  intake.Reason
		detail  string
	}{
		"nothing":            {"", nil, intake.ReasonUndecodable, "the value is empty"},
		"white space":        {" \n", nil, intake.ReasonUndecodable, "the value is empty"},
		"registry framing":   {"\x00\x00\x00\x00\x07" + body, nil, intake.ReasonUndecodable, "ingest has no registry"},
		"registry in header": {body, []string{intake.RegistrySchemaHeader, "\x010123456789abcdef"}, intake.ReasonUndecodable, "ingest has no registry"},
		"gzip":               {"\x1f\x8b\x08\x00\x00", nil, intake.ReasonUndecodable, "begins with 1f 8b 08 00"},
		"text":               {"hello", nil, intake.ReasonUndecodable, "begins with 68 65 6c 6c"},
		"not JSON":           {`{"run_id":`, nil, intake.ReasonUndecodable, "the body is not JSON"},
		"no frames":          {"[]", nil, intake.ReasonUndecodable, ""},
		"cut off":            {good[:len(good)-3], nil, intake.ReasonUndecodable, "frame 0"},
		"unknown schema":     {good[:2] + "12345678" + body, nil, intake.ReasonUndecodable, "frame 0"},
		"a bad second frame": {string(frames(nil, func(f *oona.Frame) { f.Layer = "a b" })), nil, intake.ReasonInvalid, "frame 1: layer_id:"},
		"junk behind":        {good + "x", nil, intake.ReasonUndecodable, "frame 1"},
		"a claim, no store":  {string(frames(withTensors(claimed(oona.TensorClaim{Bucket: "b", Key: "k", Size: 4})))), nil, intake.ReasonInvalid, ""},
		"many readings":      {strings.Replace(goodJSON, `"seed_ids":[0,1,2,3]`, `"seed_ids":[0,1,2,3,4]`, 1), nil, intake.ReasonTooLarge, "4"},
		"many bytes":         {goodJSON + strings.Repeat(" ", 64<<10), nil, intake.ReasonTooLarge, "--max-body-bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				onBus := newBus(t)
				p := startRaw(t, onBus, func(c *Config) { c.MaxReadings, c.MaxBodyBytes = 4, 64<<10 })
				defer p.end()
				p.send(good)
				p.send(bad.value, append(bad.headers, "of", "the producer", "$key", "x")...)
				p.send(good)
				p.settledTo(3)
				if got := onBus.on(t, rawTopics.SeedMetrics); len(got) != 2 {
					t.Errorf("%d frames are forwarded", len(got))
				}
				dead := onBus.on(t, rawTopics.SeedRawDead)
				if len(dead) != 1 {
					t.Fatalf("%d dead letters", len(dead))
				}
				m := dead[0].Metadata
				at, err := bus.PositionOf(dead[0])
				if err != nil || string(dead[0].Payload) != bad.value || string(at.Key) != "a key" || at.Appended != 1790000001500000 || m["of"] != "the producer" || m["$key"] != "x" {
					t.Errorf("the record has changed: %q %q, at %+v, %v", dead[0].Payload, m, at, err)
				}
				if m[oona.HeaderErrorException] != string(bad.reason) || !strings.Contains(m[oona.HeaderErrorMessage], bad.detail) {
					t.Errorf("it is there for %s: %s", m[oona.HeaderErrorException], m[oona.HeaderErrorMessage])
				}
				if m[oona.HeaderErrorTopic] != rawTopics.SeedRaw || m[oona.HeaderErrorPartition] != "3" || m[oona.HeaderErrorOffset] != "1" || m[oona.HeaderErrorStage] != "ingest" {
					t.Errorf("it was at %q", m)
				}
				if n := testutil.ToFloat64(p.metrics.dead.WithLabelValues(string(bad.reason))); n != 1 {
					t.Errorf("%v are counted for %s", n, bad.reason)
				}
			})
		})
	}
}

// While the bus is down nothing is committed and the order is kept. The records that
// arrive during that time are the next batch.
func TestRawWaitsForTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t)
		up := onBus.down(t)
		p := startRaw(t, onBus, nil)
		defer p.end()
		for i := range 50 {
			p.send(string(frames(func(f *oona.Frame) { f.Sequence = int64(i) })))
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		if n := testutil.ToFloat64(p.metrics.retries.WithLabelValues("frames")); n < 12 || n > 20 {
			t.Errorf("tried again %v times in a minute", n)
		}
		p.settledTo(0)
		refused := up()
		time.Sleep(longestRawPause)
		p.settledTo(50)
		got := onBus.on(t, rawTopics.SeedMetrics)
		if calls, _ := onBus.count(rawTopics.SeedMetrics); len(got) != 50 || calls-refused != 2 {
			t.Fatalf("%d frames in %d calls, want 50 in 2", len(got), calls-refused)
		}
		for i, m := range got {
			if want := frames(func(f *oona.Frame) { f.Sequence = int64(i) }); !bytes.Equal(m.Payload, want) {
				t.Fatalf("record %d is out of its order", i)
			}
		}
	})
}

// A record that is delivered twice is forwarded once.
func TestRawTakesARecordOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t)
		p := startRaw(t, onBus, nil)
		defer p.end()
		p.send(string(frames(nil)))
		p.settledTo(1)
		again := message.NewMessage("", frames(nil))
		again.SetContext(bus.WithPosition(t.Context(), bus.Position{Topic: rawTopics.SeedRaw, Partition: 3, Consumer: p.partition(3)}))
		if err := p.handle(again); err != nil {
			t.Error(err)
		}
		p.settledTo(1)
		if n := len(onBus.on(t, rawTopics.SeedMetrics)); n != 1 {
			t.Errorf("%d frames are forwarded, want 1", n)
		}
	})
}

// The memory of waiting records is limited. A record that waits for memory does not delay
// the end of the assignment.
func TestRawIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t)
		up := onBus.down(t)
		p := startRaw(t, onBus, nil)
		large := string(frames(withTensors(inline(tensorBytes(1, 800_000)))))
		for range 100 {
			p.send(large)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n, most := p.waiting(), int64(rawBatchBytes+len(large)+2*intake.MessageBytes); n < rawBatchBytes || n > most {
			t.Errorf("%d bytes wait, at most %d may", n, most)
		}
		p.settledTo(0)
		p.end()
		up()
	})
}

// A record that waits for memory does not delay the end of its session, which the next
// owner of the partition waits for. The record is not committed.
func TestRawRecordEndsWithItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t)
		up := onBus.down(t)
		p := startRaw(t, onBus, nil)
		large := string(frames(withTensors(inline(tensorBytes(1, 800_000)))))
		for range 100 {
			p.send(large)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := p.waiting(); n < rawBatchBytes {
			t.Fatalf("%d bytes wait, and the test tests nothing", n)
		}
		ended := time.Now()
		other := startRaw(t, onBus, nil)
		if took := time.Since(ended); took > time.Second {
			t.Errorf("the record was held for %s after its session had ended", took)
		}
		other.committed(3, 0)
		other.end()
		p.end()
		up()
	})
}

// A record waits while the store is down, and becomes a dead letter if the store will
// never accept its tensors.
func TestRawTensors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		var fault atomic.Pointer[error]
		store.fault = func(context.Context) error { return *fault.Load() }
		breaks := func(err error) { fault.Store(&err) }
		breaks(errors.New("no store"))
		onBus := newBus(t)
		p := startRaw(t, onBus, func(c *Config) { c.Tensors = store })
		defer p.end()
		p.send(string(frames(withTensors(inline(larger)))))
		time.Sleep(time.Minute)
		p.settledTo(0)
		if calls, _ := onBus.count(rawTopics.SeedMetrics); store.fired.Load() == 0 || calls != 0 {
			t.Fatalf("the store failed %d times, frames were published %d times", store.fired.Load(), calls)
		}
		breaks(nil)
		time.Sleep(longestRawPause)
		p.settledTo(1)
		got := onBus.on(t, rawTopics.SeedMetrics)
		if len(got) != 1 || !bytes.Equal(got[0].Payload, frames(withTensors(claimed(store.Claim(larger))))) || !store.has(t, larger) {
			t.Errorf("%d frames; stored: %v", len(got), store.has(t, larger))
		}

		dangling := string(frames(withTensors(claimed(store.Claim(aboveIt)))))
		p.send(dangling)
		p.settledTo(2)
		breaks(claimcheck.ErrMismatch)
		p.send(string(frames(withTensors(inline(aboveIt)))))
		p.settledTo(3)
		dead := onBus.on(t, rawTopics.SeedRawDead)
		if len(dead) != 2 || string(dead[0].Payload) != dangling ||
			dead[0].Metadata[oona.HeaderErrorException] != "dangling" || dead[1].Metadata[oona.HeaderErrorException] != "mismatch" {
			t.Errorf("dead letters: %v", dead)
		}
	})
}

// A record that the bus never accepts does not block the others of its batch. A dead
// letter that is too large for its topic is published without its value.
func TestRawTooLargeForTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t, func(spec *oona.TopicSpec) {
			if spec.Name != rawTopics.SeedRaw {
				spec.MaxMessageBytes = 50_000
			}
		})
		p := startRaw(t, onBus, nil)
		defer p.end()
		for range 3 {
			p.send(string(frames(nil)))
		}
		p.send(string(frames(withTensors(inline(larger)))))
		p.send(string(frames(nil)))
		p.settledTo(5)
		dead := onBus.on(t, rawTopics.SeedRawDead)
		if got := onBus.on(t, rawTopics.SeedMetrics); len(got) != 4 || len(dead) != 1 {
			t.Fatalf("%d frames, %d dead letters", len(got), len(dead))
		}
		if _, failed := onBus.count(rawTopics.SeedRawDead); failed == 0 {
			t.Error("the bus has taken the whole dead letter, and the test tests nothing")
		}
		m := dead[0].Metadata
		if m[oona.HeaderErrorException] != "too-large" || m[oona.HeaderErrorOffset] != "3" || len(dead[0].Payload) != 0 {
			t.Errorf("the dead letter is %q", m)
		}
	})
}

// If the bus refuses frames as too large together, they are published one by one. If a
// single frame of a record is too large, the dead letter says which, and that the bus has
// the other frames.
func TestRawFramesTooLargeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onBus := newBus(t, limited(50_000))
		onBus.before = func(topic string, messages []*message.Message) error {
			if topic == rawTopics.SeedMetrics {
				return oneByOne(topic, messages)
			}
			return nil
		}
		p := startRaw(t, onBus, nil)
		defer p.end()
		p.send(string(frames(nil, nil, nil)))
		p.settledTo(1)
		if got, dead := onBus.on(t, rawTopics.SeedMetrics), onBus.on(t, rawTopics.SeedRawDead); len(got) != 3 || len(dead) != 0 {
			t.Fatalf("of a good record there are %d frames, %d dead letters", len(got), len(dead))
		}
		bad := string(frames(nil, withTensors(inline(larger)), nil))
		p.send(bad)
		p.settledTo(2)
		got, dead := onBus.on(t, rawTopics.SeedMetrics), onBus.on(t, rawTopics.SeedRawDead)
		if len(got) != 5 || len(dead) != 1 {
			t.Fatalf("%d frames, %d dead letters", len(got), len(dead))
		}
		m := dead[0].Metadata
		if string(dead[0].Payload) != bad || m[oona.HeaderErrorException] != "too-large" ||
			!strings.Contains(m[oona.HeaderErrorMessage], "frame 1") {
			t.Errorf("the dead letter is %q", m)
		}
	})
}
