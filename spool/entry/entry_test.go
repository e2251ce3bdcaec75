package entry_test

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/spool/entry"
)

func sample() *entry.Entry {
	m := bus.NewMessage([]byte("payload"), bus.Target{Key: oona.Key("run", "enc.0")})
	m.Metadata = message.Metadata{"oona-path": "ingest-1", "traceparent": "00-1"}
	other := bus.NewMessage(nil, bus.Target{})
	return &entry.Entry{Spooled: 12_345, Topic: "kasmina.telemetry.seed.metrics", Messages: []*message.Message{m, other}}
}

func TestDecode(t *testing.T) {
	want := sample()
	body := entry.Append(nil, want)
	got, err := entry.Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	if got.Spooled != want.Spooled || got.Topic != want.Topic || len(got.Messages) != len(want.Messages) {
		t.Errorf("%+v", got)
	}
	for i, m := range got.Messages {
		w := want.Messages[i]
		if !bytes.Equal(m.Payload, w.Payload) || len(m.Metadata) != len(w.Metadata) || !reflect.DeepEqual(bus.TargetOf(m), bus.TargetOf(w)) {
			t.Errorf("message %d is %+v", i, m)
		}
		for name, value := range w.Metadata {
			if m.Metadata[name] != value {
				t.Errorf("message %d: header %s is %q", i, name, m.Metadata[name])
			}
		}
	}
	if runs := entry.Runs(got.Messages); !reflect.DeepEqual(runs, []string{"run"}) {
		t.Errorf("runs are %q", runs)
	}
	for cut := range body {
		if _, err := entry.Decode(body[:cut]); !errors.Is(err, entry.ErrForm) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	if _, err := entry.Decode(append(body, 0)); !errors.Is(err, entry.ErrForm) {
		t.Errorf("with a byte more: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(entry.Append(nil, sample()))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := entry.Decode(body)
		if err != nil {
			if !errors.Is(err, entry.ErrForm) {
				t.Error(err)
			}
			return
		}
		again, err := entry.Decode(entry.Append(nil, e))
		if err != nil || len(again.Messages) != len(e.Messages) || again.Topic != e.Topic {
			t.Errorf("%+v is %+v after it was written: %v", e, again, err)
		}
	})
}

// The runs of a record are in the order of their first messages, without repeats.
func TestRuns(t *testing.T) {
	var messages []*message.Message
	for _, run := range []oona.RunID{"b", "b", "a", "b", "c", "a", "c"} {
		messages = append(messages, bus.NewMessage(nil, bus.Target{Key: oona.Key(run, "enc.0")}))
	}
	messages = append(messages, bus.NewMessage(nil, bus.Target{Key: []byte("no key of a frame")}))
	if got := entry.Runs(messages); !reflect.DeepEqual(got, []string{"b", "a", "c"}) {
		t.Errorf("the runs are %q", got)
	}
}
