package ingest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

const eventPartitions = 7

// withEvents adds the topics of events to a bus.
func withEvents(t *testing.T, b *testBus) *testBus {
	t.Helper()
	if _, err := b.Apply(t.Context(), rawTopics.EventSpecs(eventPartitions)); err != nil {
		t.Fatal(err)
	}
	return b
}

func takesEvents(c *Config) { c.Events = rawTopics }

func postEvents(s *Stage, mediaType string, body []byte, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/v1/events", bytes.NewReader(body))
	r.Header.Set("Content-Type", mediaType)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func goodEvent(sequence int64, from, to oona.State) *oona.SeedEvent {
	return &oona.SeedEvent{
		Run: "digits", Layer: "enc.1", Seed: 17, Sequence: sequence, At: 1_790_000_001_000_000, Step: 7,
		From: from, To: to, Reason: "a plateau", Evidence: map[string]float64{"gain": .25, "after": 1},
	}
}

// life is the events of a seed, one for each topic.
func life() []*oona.SeedEvent {
	return []*oona.SeedEvent{
		goodEvent(0, oona.Dormant, oona.Germinated), goodEvent(1, oona.Germinated, oona.Training), goodEvent(2, oona.Training, oona.Grafting),
		goodEvent(3, oona.Evaluating, oona.Culled), goodEvent(4, oona.FineTuning, oona.Fossilized),
	}
}

func lifeTopics() []string {
	return []string{rawTopics.Germinated, rawTopics.Transitioned, rawTopics.Grafted, rawTopics.Culled, rawTopics.Fossilized}
}

func events(all ...*oona.SeedEvent) (body []byte) {
	for _, e := range all {
		body = avro.AppendEvent(body, e)
	}
	return body
}

func eventSchema(t *testing.T, version int) avro.Schema {
	t.Helper()
	for _, s := range avro.Schemas() {
		if s.Name == avro.EventName && s.Version == version {
			return s
		}
	}
	t.Fatalf("there is no version %d", version)
	return avro.Schema{}
}

// firstVersion encodes an event as version 1 does, which lacks the last 14 fields. Their
// defaults take one byte each.
func firstVersion(t *testing.T, e *oona.SeedEvent) []byte {
	t.Helper()
	body := avro.AppendEvent(nil, e)
	binary.LittleEndian.PutUint64(body[2:], eventSchema(t, 1).Fingerprint)
	return body[:len(body)-14]
}

// container returns an object container file without compression.
func container(t *testing.T, version int, singles ...[]byte) []byte {
	t.Helper()
	text := func(dst []byte, s string) []byte { return append(binary.AppendVarint(dst, int64(len(s))), s...) }
	sync := "0123456789abcdef"
	file := append([]byte(avro.ContainerMagic), 2)
	file = text(text(file, "avro.schema"), eventSchema(t, version).Text)
	file = append(append(file, 0), sync...)
	var block []byte
	for _, s := range singles {
		block = append(block, s[10:]...)
	}
	file = binary.AppendVarint(file, int64(len(singles)))
	return append(text(file, string(block)), sync...)
}

// read returns the records of the topics of events, by topic.
func (b *testBus) events(t *testing.T) map[string][]*message.Message {
	t.Helper()
	found := make(map[string][]*message.Message)
	for _, topic := range rawTopics.AllEvents() {
		for p := range int32(eventPartitions) {
			err := b.Read(t.Context(), topic, bus.Range{Partition: p, End: 1 << 40}, func(m *message.Message) error {
				found[topic] = append(found[topic], m)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return found
}

// TestEvents: events become the same records however they are sent.
func TestEvents(t *testing.T) {
	var old [][]byte
	var inJSON []map[string]any
	for _, e := range life() {
		old = append(old, firstVersion(t, e))
		inJSON = append(inJSON, map[string]any{
			"run_id": e.Run, "layer_id": e.Layer, "seed_id": e.Seed, "sequence": e.Sequence, "at": e.At, "step": e.Step,
			"from_state": e.From.String(), "to_state": e.To.String(), "reason": e.Reason, "evidence": e.Evidence, "mark": "NORMAL",
		})
	}
	asJSON, err := json.Marshal(inJSON)
	if err != nil {
		t.Fatal(err)
	}
	for name, sent := range map[string]struct {
		mediaType string
		body      []byte
	}{
		"version 2":           {mediaAvro, events(life()...)},
		"version 1":           {mediaAvro, bytes.Join(old, nil)},
		"a container":         {mediaAvro, container(t, 1, old...)},
		"a newer container":   {mediaAvro, container(t, 2, avro.AppendEvent(nil, life()[0]), avro.AppendEvent(nil, life()[1]), avro.AppendEvent(nil, life()[2]), avro.AppendEvent(nil, life()[3]), avro.AppendEvent(nil, life()[4]))},
		"JSON":                {mediaJSON, asJSON},
		"mixed single object": {mediaAvro, append(bytes.Join(old[:2], nil), events(life()[2:]...)...)},
	} {
		t.Run(name, func(t *testing.T) {
			onBus := withEvents(t, newBus(t))
			s := newStage(t, onBus, takesEvents)
			const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
			w := postEvents(s, sent.mediaType, sent.body, "traceparent", trace)
			if w.Code != http.StatusOK || w.Body.String() != "{\"accepted\":5}\n" {
				t.Fatalf("answer is %d %s", w.Code, w.Body)
			}
			found := onBus.events(t)
			for i, e := range life() {
				records := found[lifeTopics()[i]]
				if len(records) != 1 {
					t.Fatalf("%s has %d records", lifeTopics()[i], len(records))
				}
				m := records[0]
				at, err := bus.PositionOf(m)
				if err != nil || !bytes.Equal(at.Key, oona.SeedKey("digits", "enc.1", 17)) || at.Partition != bus.PartitionOf([]byte("digits"), eventPartitions) {
					t.Errorf("event %d has key %q in partition %d (%v)", i, at.Key, at.Partition, err)
				}
				if !bytes.Equal(m.Payload, avro.AppendEvent(nil, e)) {
					t.Errorf("event %d is %x", i, m.Payload)
				}
				for header, want := range map[string]string{
					"ce_specversion": "1.0", "ce_id": "digits/enc.1/17/0/" + string(rune('0'+i)), "ce_source": "urn:oona:run:digits", "ce_subject": "enc.1/17",
					"ce_type": lifeTopics()[i], "ce_time": "2026-09-21T14:13:21Z", "content-type": "application/avro", "oona-path": "ingest-1", "traceparent": trace,
				} {
					if m.Metadata[header] != want {
						t.Errorf("event %d: header %s is %q, want %q", i, header, m.Metadata[header], want)
					}
				}
			}
			if c := s.Counts(); c.Events != 5 || c.Frames != 0 || testutil.ToFloat64(s.counts.eventsTotal) != 5 {
				t.Errorf("counts are %+v", c)
			}
		})
	}
}

// TestRunEnd: the end of a run goes to its topic, into the partition of the run's events, and is
// refused like these if the topic does not exist.
func TestRunEnd(t *testing.T) {
	end := &oona.RunEnd{Run: "digits", At: 1_790_000_002_000_000, Step: 8, Outcome: oona.RunCompleted}
	body := avro.AppendRunEnd(events(life()...), end)
	onBus := withEvents(t, newBus(t))
	s := newStage(t, onBus, takesEvents)
	if w := postEvents(s, mediaAvro, body); w.Code != http.StatusOK || w.Body.String() != "{\"accepted\":6}\n" {
		t.Fatalf("answer is %d %s", w.Code, w.Body)
	}
	records := onBus.events(t)[rawTopics.RunEnded]
	if len(records) != 1 {
		t.Fatalf("%s has %d records", rawTopics.RunEnded, len(records))
	}
	if at, err := bus.PositionOf(records[0]); err != nil || string(at.Key) != "digits" || at.Partition != bus.PartitionOf([]byte("digits"), eventPartitions) {
		t.Errorf("it has the key %q in partition %d (%v)", at.Key, at.Partition, err)
	}
	if !bytes.Equal(records[0].Payload, avro.AppendRunEnd(nil, end)) {
		t.Errorf("it is %x", records[0].Payload)
	}
	onBus.before = func(topic string, _ []*message.Message) error {
		if topic == rawTopics.RunEnded {
			return bus.ErrNoTopic
		}
		return nil
	}
	w := postEvents(s, mediaAvro, body)
	if got := decodeProblem(t, w); w.Code != answers[reasonNoTopic].status || got.Type != "urn:oona:problem:"+string(reasonNoTopic) || !strings.Contains(got.Detail, rawTopics.RunEnded) {
		t.Errorf("without its topic, the answer is %d %s", w.Code, w.Body)
	}
	if n := len(onBus.events(t)[rawTopics.Grafted]); n != 2 {
		t.Errorf("the events of seeds were accepted %d times, want 2", n)
	}
}
