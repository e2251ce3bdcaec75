package aggregate_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// configuration returns the payload of a record that takes effect at a time after the
// beginning.
func (f *fixture) configuration(generation int32, from time.Duration, change func(*windows.Config)) []byte {
	c := windows.Configuration{Config: windows.DefaultConfig(), From: oona.MicrosOf(f.begin.Add(from))}
	c.Config.Generation = generation
	if change != nil {
		change(&c.Config)
	}
	return avro.AppendConfiguration(nil, c.Record())
}

// own returns the headers of one of Oona's own records.
func own(kind string) map[string]string { return map[string]string{oona.HeaderRecord: kind} }

func length(d time.Duration) func(*windows.Config) {
	return func(c *windows.Config) { c.Length = d }
}

// lengths returns the lengths of the windows of health rollups, with generations.
func (f *fixture) lengths(t *testing.T) (all []string) {
	t.Helper()
	for _, r := range f.rollups(t, f.topics.LayerHealth) {
		all = append(all, fmt.Sprintf("%d:%s", r.Generation, time.Duration(r.End-r.Start)*time.Microsecond))
	}
	return all
}

// A configuration at the beginning of a log applies to the whole log. A later one applies to the windows
// that begin after it takes effect. A void configuration has no effect.
func TestConfigurationsInTheLog(t *testing.T) {
	for _, c := range []struct {
		name       string
		second     func(*fixture) []byte
		windows    string
		generation int
	}{
		{"holds from a seam on", func(f *fixture) []byte { return f.configuration(2, 70*time.Second, length(10*time.Second)) }, "1:20s 1:20s 1:20s 1:20s 2:10s 2:10s", 2},
		{"void: its generation is not new", func(f *fixture) []byte { return f.configuration(1, 70*time.Second, length(10*time.Second)) }, "1:20s 1:20s 1:20s 1:20s 1:20s", 1},
		{"void: frames may have been folded", func(f *fixture) []byte { return f.configuration(2, 50*time.Second, length(10*time.Second)) }, "1:20s 1:20s 1:20s 1:20s 1:20s", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, nil)
			f.feed.append(f.configuration(1, 0, length(20*time.Second)), f.begin, own(oona.ConfigurationRecord))
			f.feed.append(c.second(f), f.begin, own(oona.ConfigurationRecord))
			for s := range 110 {
				f.send(f.frame(time.Duration(s) * time.Second))
			}
			f.stop()
			if got := strings.Join(f.lengths(t), " "); got != c.windows {
				t.Errorf("generation and length of the windows are %s, want %s", got, c.windows)
			}
			if n := f.stage.Counts(); n.Own != 2 || n.Folded != 110 || n.Dead != 0 {
				t.Errorf("counts are %+v", n)
			}
			f.wantGauges(t, map[string]float64{"configuration_generation": float64(c.generation)})
		})
	}
}

// Only the log decides which version of the reducers is used. Another version is not reported as a
// difference from the worker's settings.
func TestReducerIsTheLogs(t *testing.T) {
	const key = "differ=" // the key of the settings that differ
	for reducer := int32(1); reducer <= windows.Reducer; reducer++ {
		f := start(t, nil)
		f.feed.append(f.configuration(1, 0, func(c *windows.Config) { c.Reducer = reducer }), f.begin, own(oona.ConfigurationRecord))
		for s := range 20 {
			f.send(f.frame(time.Duration(s) * time.Second))
		}
		f.stop()
		if strings.Contains(f.log.String(), key) {
			t.Errorf("reducer %d: the stage logs settings that differ: %s", reducer, &f.log)
		}
		if n := f.stage.Counts(); n.Own != 1 || n.Folded != 20 {
			t.Errorf("reducer %d: counts are %+v", reducer, n)
		}
	}
	f := start(t, nil)
	f.feed.append(f.configuration(1, 0, length(20*time.Second)), f.begin, own(oona.ConfigurationRecord))
	f.stop()
	if says := f.log.String(); !strings.Contains(says, key) || !strings.Contains(says, "window-length: 20s, here 10s") {
		t.Errorf("another length is not logged: %s", &f.log)
	} else if strings.Contains(says, "Catalogue") || strings.Contains(says, "max-skew") {
		t.Errorf("equal settings are logged: %s", &f.log)
	}
}

// A configuration record that is not valid becomes a dead letter and has no effect. A record of an
// unknown kind is only skipped.
func TestBadRecordsOfOonasOwn(t *testing.T) {
	for _, c := range []struct {
		name    string
		kind    string
		payload func(*fixture) []byte
		reason  string // reason of the dead letter; empty if there is none
		says    string
	}{
		{"no Avro", oona.ConfigurationRecord, func(*fixture) []byte { return []byte("not avro") }, "undecodable", ""},
		{"a tick", oona.ConfigurationRecord, func(*fixture) []byte { return avro.AppendTick(nil, oona.Tick{}) }, "undecodable", "fingerprint"},
		{"more bytes", oona.ConfigurationRecord, func(f *fixture) []byte { return append(f.configuration(1, 0, nil), 0) }, "undecodable", ""},
		{"generation 0", oona.ConfigurationRecord, func(f *fixture) []byte { return f.configuration(0, 0, nil) }, "invalid", "generation"},
		{"no length", oona.ConfigurationRecord, func(f *fixture) []byte { return f.configuration(1, 0, length(0)) }, "invalid", "Length"},
		{"of another kind", "watermark/1", func(*fixture) []byte { return []byte("who knows") }, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, nil)
			bad := c.payload(f)
			f.feed.append(bad, f.begin, own(c.kind))
			for s := range 20 {
				f.send(f.frame(time.Duration(s) * time.Second))
			}
			f.stop()
			n := f.stage.Counts()
			dead := f.out.of(t, f.topics.SeedMetricsDead)
			if c.reason == "" {
				if n.Own != 1 || n.Dead != 0 || len(dead) != 0 {
					t.Errorf("counts are %+v, %d dead letters; want it skipped", n, len(dead))
				}
			} else if n.Own != 0 || n.Dead != 1 || len(dead) != 1 || string(dead[0].Payload) != string(bad) || dead[0].Metadata[oona.HeaderRecord] != c.kind ||
				dead[0].Metadata[oona.HeaderErrorException] != c.reason || !strings.Contains(dead[0].Metadata[oona.HeaderErrorMessage], c.says) {
				t.Errorf("counts are %+v, dead letters %v", n, dead)
			}
			if got := strings.Join(f.lengths(t), " "); n.Folded != 20 || got != "0:10s" {
				t.Errorf("%d frames were folded into %q, want the worker's own windows", n.Folded, got)
			}
		})
	}
}

// A damaged configuration looks like one of a later version. It becomes a dead letter if the stage is
// told to skip it. Otherwise the stage ends.
func TestDamagedConfigurationIsSkipped(t *testing.T) {
	f := start(t, func(c *aggregate.Config) { c.Skip = []aggregate.RecordAt{{Partition: 3, Offset: 1}} })
	damaged := f.configuration(1, 0, length(20*time.Second))
	damaged[2] ^= 0xff // of the fingerprint
	f.send(f.frame(0))
	f.feed.append(damaged, f.begin, own(oona.ConfigurationRecord))
	for s := 1; s < 20; s++ {
		f.send(f.frame(time.Duration(s) * time.Second))
	}
	f.stop()
	n, dead := f.stage.Counts(), f.out.of(t, f.topics.SeedMetricsDead)
	if n.Folded != 20 || n.Dead != 1 || len(dead) != 1 || string(dead[0].Payload) != string(damaged) || dead[0].Metadata[oona.HeaderErrorException] != "undecodable" {
		t.Errorf("counts are %+v, dead letters %v", n, dead)
	}
	if got := strings.Join(f.lengths(t), " "); got != "0:10s" {
		t.Errorf("windows are %q, want the worker's own", got)
	}
}

// A frame that the stage is told to skip becomes a dead letter. It is not even decoded.
func TestFrameIsSkipped(t *testing.T) {
	f := start(t, func(c *aggregate.Config) {
		c.Skip = []aggregate.RecordAt{{Partition: 3, Offset: 1}, {Partition: 2, Offset: 0}}
	})
	for s := range 3 {
		f.send(f.frame(time.Duration(s) * time.Second))
	}
	f.stop()
	n, dead := f.stage.Counts(), f.out.of(t, f.topics.SeedMetricsDead)
	if n.Folded != 2 || n.Dead != 1 || len(dead) != 1 {
		t.Fatalf("counts are %+v, dead letters %v", n, dead)
	}
	if m := dead[0].Metadata; m[oona.HeaderErrorException] != "skipped" || m[oona.HeaderErrorOffset] != "1" {
		t.Errorf("the dead letter is %v", m)
	}
}

// A configuration of a later version ends the stage, because this version would fold the frames wrongly.
func TestConfigurationsOfALaterVersionEndTheStage(t *testing.T) {
	unpublished := avro.AppendConfiguration(nil, oona.WindowConfiguration{})
	unpublished[2] ^= 0xff // of the fingerprint
	for name, c := range map[string]struct {
		kind    string
		payload func(*fixture) []byte
	}{
		"reducer": {oona.ConfigurationRecord, func(f *fixture) []byte {
			return f.configuration(1, 0, func(c *windows.Config) { c.Reducer = windows.Reducer + 1 })
		}},
		"schema": {oona.ConfigurationRecord, func(*fixture) []byte { return unpublished }},
		"kind":   {"configuration/2", func(*fixture) []byte { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fixture{out: newOutputs(t), begin: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
			f.stage = newStage(t, f, nil)
			assignment := bus.Assignment{Committed: bus.Commit{Offset: oona.NoOffset}}
			f.feed = &feed{stage: f.stage, assignment: assignment, messages: make(chan *message.Message)}
			ended := make(chan error, 1)
			go func() { ended <- f.stage.Run(t.Context(), f.feed) }()
			f.send(f.frame(0))
			msg := f.feed.message(c.payload(f), f.begin, map[string]string{oona.HeaderRecord: c.kind})
			f.feed.messages <- msg
			select {
			case <-msg.Nacked():
			case <-msg.Acked():
				t.Error("the record was taken")
			}
			close(f.feed.messages)
			if err := <-ended; !errors.Is(err, aggregate.ErrUpgrade) || !strings.Contains(err.Error(), "--skip-record=0:1") {
				t.Errorf("Run: %v", err)
			}
			if n := f.stage.Counts(); n.Folded != 1 || n.Own != 0 || n.Dead != 0 {
				t.Errorf("counts are %+v", n)
			}
		})
	}
}

// A successor keeps the configuration that its predecessor found in the log, whatever
// its own settings are.
func TestSuccessorKeepsTheConfiguration(t *testing.T) {
	first := start(t, nil)
	first.feed.append(first.configuration(1, 0, length(20*time.Second)), first.begin, own(oona.ConfigurationRecord))
	for s := range 100 { // enough for the configuration to be below the safe offset
		first.send(first.frame(time.Duration(s) * time.Second))
	}
	commit, due := first.feed.commit()
	if !due {
		t.Fatal("nothing to commit")
	}
	first.stop()

	assignment := takenOver(first.feed.assignment, commit)
	second := startWith(t, assignment, func(c *aggregate.Config) { c.Windows.Length = 7 * time.Second })
	if begin(assignment) < 1 {
		t.Fatalf("the commit is at offset %d, so that the configuration itself would be read again", begin(assignment))
	}
	for offset := begin(assignment); offset < first.feed.next+20; offset++ { // the frame at offset n is observed in second n-1
		second.sequence = offset - 1
		second.send(second.frame(time.Duration(offset-1) * time.Second))
	}
	second.stop()
	if got := strings.Join(append(first.lengths(t), second.lengths(t)...), " "); got != "1:20s 1:20s 1:20s 1:20s 1:20s" {
		t.Errorf("windows are %s, want five of the log's", got)
	}
	if n := second.stage.Counts(); n.Replayed == 0 || n.Folded != 20 {
		t.Errorf("the successor's counts are %+v", n)
	}
}

// A configuration that asks for a million ticks per second gets a hundred.
func TestTicksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		f.begin = time.Now()
		f.feed.append(f.configuration(1, 0, func(c *windows.Config) {
			c.TickInterval, c.IdleHorizon = time.Microsecond, time.Minute
		}), f.begin, own(oona.ConfigurationRecord))
		f.send(f.frame(0))
		time.Sleep(time.Second) // the first wait may still have the interval of the settings
		synctest.Wait()
		before := len(f.out.of(t, f.topics.SeedMetrics))
		time.Sleep(time.Second)
		synctest.Wait()
		if got := len(f.out.of(t, f.topics.SeedMetrics)) - before; got < 90 || got > 101 {
			t.Errorf("%d ticks in a second, want 100", got)
		}
		f.stop()
	})
}

// The tick interval is taken from the log, not from the worker's settings.
func TestTicksGoByTheLogsInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(c *aggregate.Config) { c.Windows.TickInterval = 10 * time.Second })
		f.begin = time.Now()
		synctest.Wait()                                                                   // the first wait for a tick begins, by the settings
		f.feed.append(f.configuration(1, 0, nil), f.begin, own(oona.ConfigurationRecord)) // with ticks of 1 s
		f.send(f.frame(0))
		f.feed.pass(20, 2)
		synctest.Wait()
		if got := len(f.out.of(t, f.topics.SeedMetrics)); got < 9 || got > 12 {
			t.Errorf("%d ticks in 20 s, want one a second after the first ten", got)
		}
		f.stop()
	})
}
