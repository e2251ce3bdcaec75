package intake

import (
	"slices"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

func sampleEnd() *oona.RunEnd {
	return &oona.RunEnd{Run: "r", At: 1_790_000_001_000_001, Step: 9, Outcome: oona.RunFailed, Reason: "out of memory", Timeline: "t", Producer: "p", ProducerEpoch: 3}
}

// TestRunEnds: an end has the same record in JSON and in Avro, beside events of seeds.
func TestRunEnds(t *testing.T) {
	const event = `{"run_id": "r", "layer_id": "l", "seed_id": 1, "sequence": 0, "at": 1790000001000001, "from_state": "DORMANT", "to_state": "GERMINATED"}`
	const end = `{ "run_end": {"run_id": "r", "at": 1790000001000001, "step": 9, "outcome": "FAILED", "reason": "out of memory", "timeline": "t", "producer_id": "p", "producer_epoch": 3}}`
	cfg := config
	topics, err := oona.NewTopics("prefix")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Events = topics
	var seen [][]*message.Message
	for way, read := range map[string]func(b *Batch) *Refusal{
		"Avro": func(b *Batch) *Refusal { return AvroEvents(avro.AppendRunEnd(eventBody(asItIs), sampleEnd()), b) },
		"JSON": func(b *Batch) *Refusal { return NewDecoder(config.Frame).JSONEvents([]byte("["+event+","+end+"]"), b) },
	} {
		b := cfg.NewBatch()
		if refused := read(b); refused != nil {
			t.Fatalf("%s: %+v", way, refused)
		}
		if want := []string{topics.Germinated, topics.RunEnded}; !slices.Equal(b.Topics, want) {
			t.Errorf("%s: topics %v, want %v", way, b.Topics, want)
		}
		seen = append(seen, b.Messages)
	}
	for i := range seen[0] {
		a, b := seen[0][i], seen[1][i]
		if string(a.Payload) != string(b.Payload) || a.Metadata.Get(oona.HeaderEventID) != b.Metadata.Get(oona.HeaderEventID) {
			t.Errorf("record %d is %x (%v), and %x (%v)", i, a.Payload, a.Metadata, b.Payload, b.Metadata)
		}
	}
	m := seen[0][1]
	var got oona.RunEnd
	if _, err := avro.DecodeRunEnd(m.Payload, &got); err != nil || got != *sampleEnd() {
		t.Errorf("the record is %+v, %v", got, err)
	}
	if to := bus.TargetOf(m); string(to.Key) != "r" || !to.Hashed || to.Partition != bus.TargetOf(seen[0][0]).Partition {
		t.Errorf("it goes to %+v", to)
	}
	for header, want := range map[string]string{
		oona.HeaderEventVersion: "1.0", oona.HeaderEventID: "r/p/3/1790000001000001", oona.HeaderEventSource: "urn:oona:run:r",
		oona.HeaderEventType: "kasmina.events.run.ended", oona.HeaderEventSubject: "r", oona.HeaderEventTime: "2026-09-21T14:13:21.000001Z",
	} {
		if got := m.Metadata.Get(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
}

// TestRefusedRunEnds: an answer names the field that is wrong.
func TestRefusedRunEnds(t *testing.T) {
	for body, field := range map[string]string{
		`{"run_end": {"at": 1790000001000001, "outcome": "FAILED"}}`:                                        "run_end.run_id",
		`{"run_end": {"run_id": "r", "outcome": "FAILED"}}`:                                                 "run_end.at",
		`{"run_end": {"run_id": "r", "at": 1790000001000001}}`:                                              "run_end.outcome",
		`{"run_end": {"run_id": "r", "at": 1790000001000001, "outcome": "failed"}}`:                         "run_end.outcome",
		`{"run_end": {"run_id": "r", "at": 1790000001000001, "outcome": 2}}`:                                "run_end.outcome",
		`{"run_end": {"run_id": "r", "at": 1, "outcome": "FAILED"}}`:                                        "at",
		`{"run_end": {"run_id": "r", "at": 1790000001000001, "outcome": "FAILED", "layer_id": "l"}}`:        "run_end.layer_id",
		`{"run_end": {"run_id": "r", "at": 1790000001000001, "outcome": "FAILED", "at": 1790000001000001}}`: "run_end.at",
		`{"run_end": {"run_id": "r", "at": 1790000001000001, "outcome": "FAILED"}, "run_id": "r"}`:          "run_id",
		`{"run_end": 7}`:                 "run_end",
		`{"run_id": "r", "run_end": {}}`: "run_end",
	} {
		b := config.NewBatch()
		refused := NewDecoder(config.Frame).JSONEvents([]byte(body), b)
		if refused == nil || refused.Reason != ReasonInvalid || refused.Field != field || refused.Event == nil || *refused.Event != 0 || len(b.Messages) > 0 {
			t.Errorf("%s: %+v, want the field %s", body, refused, field)
		}
	}
	wrong := sampleEnd()
	wrong.Step = -1
	if refused := AvroEvents(avro.AppendRunEnd(eventBody(asItIs), wrong), config.NewBatch()); refused == nil || refused.Field != "step" || refused.Event == nil || *refused.Event != 1 {
		t.Errorf("in Avro: %+v", refused)
	}
	b := config.NewBatch()
	b.PermitEvent = func(run oona.RunID, producer oona.ProducerID) *Refusal {
		return Refuse(ReasonInvalid, "%s and %s are not permitted", run, producer)
	}
	if refused := AvroEvents(avro.AppendRunEnd(nil, sampleEnd()), b); refused == nil || len(b.Messages) > 0 {
		t.Errorf("not permitted: %+v", refused)
	}
	if refused := AvroEvents(avro.AppendRunEnd(eventBody(asItIs, asItIs), sampleEnd()), config.NewBatch()); refused == nil || refused.Reason != ReasonTooLarge {
		t.Errorf("one more than allowed: %+v", refused)
	}
}
