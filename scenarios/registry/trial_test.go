package registry

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	kafkabus "github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/schemas/registry/registrytest"
)

const prefix = "trial"

// site is an installation with a registry.
type site struct {
	*testing.T
	python   string
	brokers  string
	registry string // its URL
	cache    string
	bus      bus.Bus
	topics   oona.Topics
	copies   oona.Topics
	url      string // of ingest
}

// Frames of Confluent's serializers are folded as if they had been sent without a
// registry, also while it is down, and Confluent's deserializers read the rollups.
func TestTrial(t *testing.T) {
	python := requirePython(t)
	apicurio := startRegistry(t)
	s := newSite(t, python, apicurio.url)
	s.oona("topics", "apply", "--partitions=3", "--window-length=1s", "--allowed-lateness=1s", "--idle-horizon=5s")
	s.oona("registry", "register", "--registry-url="+s.registry)
	s.oona("registry", "check", "--registry-url="+s.registry)
	stop := s.startIngest()
	s.start(binaries.aggregate, "partition assigned", "partition", "--admin-address=127.0.0.1:0")
	endMirror := s.startMirror()

	var sent struct {
		Sent             []string
		Dead             int
		Answers, Refused [][2]json.RawMessage
		Later            int
	}
	s.confluent(&sent, "send", s.url)
	for i, answer := range sent.Answers {
		if string(answer[0]) != "200" {
			t.Errorf("request %d is answered %s %s", i, answer[0], answer[1])
		}
	}
	for i, answer := range sent.Refused {
		if string(answer[0]) != "400" || !strings.Contains(string(answer[1]), "urn:oona:problem:schema") {
			t.Errorf("bad request %d is answered %s %s", i, answer[0], answer[1])
		}
	}
	s.logHas(sent.Sent)
	for _, m := range s.read(s.topics.SeedRawDead, sent.Dead) {
		if why := m.Metadata.Get(oona.HeaderErrorException); why != "schema" {
			t.Errorf("a dead letter is there for %s: %s", why, m.Metadata.Get(oona.HeaderErrorMessage))
		}
	}

	// The registry is down. An ingest that starts takes what it has seen before, by its
	// file. What it has not seen waits.
	apicurio.stop(t)
	stop()
	stop = s.startIngest()
	var waits struct{ Sent []string }
	s.confluent(&waits, "later", jsonNumber(sent.Later))
	if code := s.post([]byte{0, 0, 0, 0x30, 0x39}); code != http.StatusServiceUnavailable {
		t.Errorf("a frame with an unknown id is answered %d while the registry is down", code)
	}
	if code := s.post(s.again(sent.Sent[0])); code != http.StatusOK {
		t.Errorf("a frame with a known id is answered %d while the registry is down", code)
	}
	sent.Sent = append(sent.Sent, sent.Sent[0])
	s.logHas(sent.Sent)
	apicurio.start(t)
	s.logHas(append(sent.Sent, waits.Sent...))

	s.mirrored(s.topics.LayerHealth, s.copies.LayerHealth, 3)
	s.mirrored(s.topics.LayerPerformance, s.copies.LayerPerformance, 3)
	s.mirrored(s.topics.Late, s.copies.Late, 1)
	s.oona("group", "show", "--group=oona-mirror", "--topic="+s.topics.LayerHealth)
	endMirror(syscall.SIGKILL)
	endMirror = s.startMirror()
	var more struct{ Sent []string }
	s.confluent(&more, "send", s.url)
	s.mirrored(s.topics.LayerHealth, s.copies.LayerHealth, 6)
	endMirror(syscall.SIGTERM)
	stop()
}

// Confluent's serializer can put the GUID of the schema into a header. Apicurio has no
// GUIDs, so the registry is franz-go's.
func TestGUIDs(t *testing.T) {
	python := requirePython(t)
	fake := registrytest.Start(t, "")
	s := newSite(t, python, fake.URL)
	for _, schema := range avro.Schemas() {
		if schema.Name == "kasmina.telemetry.SeedMetrics" {
			fake.Register(s.topics.SeedRaw+"-value", schema.Text)
		}
	}
	s.oona("topics", "apply", "--partitions=1")
	stop := s.startIngest()
	defer stop()
	var sent struct{ Sent []string }
	s.confluent(&sent, "guid")
	s.logHas(sent.Sent)
	for _, m := range s.all(s.topics.SeedRaw) {
		if id := m.Metadata.Get("__value_schema_id"); len(id) != 17 || id[0] != 1 {
			t.Errorf("the header of a record is %x", id)
		}
	}
}

func newSite(t *testing.T, python, registry string) *site {
	t.Helper()
	s := &site{T: t, python: python, registry: registry, cache: filepath.Join(t.TempDir(), "schemas.json")}
	broker, err := embedded.Start(t.Context(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	})
	s.brokers = strings.Join(broker.Addrs, ",")
	s.bus = kafkabus.New(kafkabus.Config{Brokers: broker.Addrs, ClientID: "trial"}, slog.New(slog.DiscardHandler))
	if s.topics, err = oona.NewTopics(prefix); err != nil {
		t.Fatal(err)
	}
	if s.copies, err = oona.NewTopics(prefix + ".registry"); err != nil {
		t.Fatal(err)
	}
	return s
}

// oona runs a command, which must succeed.
func (s *site) oona(args ...string) {
	s.Helper()
	args = append(args, "--prefix="+prefix)
	if args[0] != "registry" {
		args = append(args, "--brokers="+s.brokers)
	}
	out, err := exec.CommandContext(s.Context(), binaries.oona, args...).CombinedOutput()
	if err != nil {
		s.Fatalf("oona %v: %v\n%s", args, err, out)
	}
	s.Logf("oona %v:\n%s", args, out)
}

// start starts a worker and waits until it logs a text with a key. end ends it.
func (s *site) start(binary, text, key string, args ...string) (line map[string]any, end func(syscall.Signal)) {
	s.Helper()
	args = append(args, "--prefix="+prefix, "--brokers="+s.brokers, "--log-format=json", "--log-level=info")
	cmd := exec.Command(binary, args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	found, done := make(chan map[string]any, 1), make(chan struct{})
	name := filepath.Base(binary)
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var line map[string]any
			_ = json.Unmarshal(lines.Bytes(), &line) // a line of text has none of what is looked for
			if said, _ := line["msg"].(string); strings.Contains(said, text) && line[key] != nil {
				select {
				case found <- line:
				default:
				}
			}
			s.Log(name + ": " + lines.Text())
		}
	}()
	ended := false
	end = func(by syscall.Signal) {
		if ended {
			return
		}
		ended = true
		_ = cmd.Process.Signal(by)
		<-done
		if err := cmd.Wait(); err != nil && by != syscall.SIGKILL {
			s.Errorf("%s: %v", name, err)
		}
	}
	s.Cleanup(func() { end(syscall.SIGTERM) })
	select {
	case line = <-found:
	case <-done:
		s.Fatalf("%s has ended", name)
	case <-time.After(5 * time.Minute):
		s.Fatalf("%s does not log %q", name, text)
	}
	return line, end
}

func (s *site) startIngest() (stop func()) {
	s.Helper()
	line, end := s.start(binaries.ingest, "ingest accepts frames", "address", "--raw", "--listen=127.0.0.1:0", "--admin-address=127.0.0.1:0",
		"--registry-url="+s.registry, "--registry-cache="+s.cache)
	address, _ := line["address"].(string)
	s.url = "http://" + address
	return func() { end(syscall.SIGTERM) }
}

func (s *site) startMirror() (end func(syscall.Signal)) {
	s.Helper()
	_, end = s.start(binaries.oona, "partition assigned", "partition", "registry", "mirror", "--registry-url="+s.registry)
	return end
}

// confluent runs a program with Confluent's library, which prints JSON.
func (s *site) confluent(into any, what string, args ...string) {
	s.Helper()
	if err := s.runConfluent(into, what, args...); err != nil {
		s.Fatal(err)
	}
}

func (s *site) runConfluent(into any, what string, args ...string) error {
	args = append([]string{filepath.Join("testdata", "confluent.py"), what, s.brokers, prefix, s.registry}, args...)
	cmd := exec.CommandContext(s.Context(), s.python, args...)
	var problems strings.Builder
	cmd.Stderr = &problems
	said, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%v: %w\n%s", args, err, problems.String())
	}
	return json.Unmarshal(said, into)
}

// logHas waits until the topic of frames has these frames and no others, in any order.
func (s *site) logHas(sent []string) {
	s.Helper()
	left := make(map[string]int)
	for _, frame := range sent {
		left[frame]++
	}
	frames := 0
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var found []string
		for _, m := range s.all(s.topics.SeedMetrics) {
			if m.Metadata.Get(oona.HeaderRecord) == "" {
				found = append(found, hex.EncodeToString(m.Payload))
			}
		}
		if frames = len(found); frames >= len(sent) {
			for _, frame := range found {
				if left[frame]--; left[frame] < 0 {
					s.Fatalf("the log has a frame that was not sent: %s", frame)
				}
			}
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("the log has %d frames of %d", frames, len(sent))
		}
	}
}

// all reads a topic to its end.
func (s *site) all(topic string) (found []*message.Message) {
	s.Helper()
	extents, err := s.bus.Extents(s.Context(), topic)
	if err != nil {
		s.Fatal(err)
	}
	for p, e := range extents[topic] {
		err := s.bus.Read(s.Context(), topic, bus.Range{Partition: int32(p), From: e.Start, End: e.End}, func(m *message.Message) error {
			found = append(found, m)
			return nil
		})
		if err != nil {
			s.Fatal(err)
		}
	}
	return found
}

// read waits until a topic has at least so many records.
func (s *site) read(topic string, least int) []*message.Message {
	s.Helper()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if found := s.all(topic); len(found) >= least {
			return found
		}
		if time.Now().After(deadline) {
			s.Fatalf("%s does not get %d records", topic, least)
		}
	}
}

// mirrored waits until each record of a topic has a copy, and lets Confluent's deserializer
// compare them.
func (s *site) mirrored(topic, mirror string, least int) {
	s.Helper()
	s.read(topic, least)
	var result struct{ Compared int }
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(time.Second) {
		err := s.runConfluent(&result, "compare", topic, mirror)
		if err == nil {
			break
		}
		if time.Now().After(deadline) { // until then, there may be records without copies
			s.Fatal(err)
		}
	}
	s.Logf("%d copies of %s are as their records", result.Compared, topic)
}

// again returns a frame that was sent, with the framing of the registry.
func (s *site) again(sent string) []byte {
	s.Helper()
	single, err := hex.DecodeString(sent)
	if err != nil {
		s.Fatal(err)
	}
	dead := s.all(s.topics.SeedRaw)[0] // its first record has the id
	return append(append([]byte{}, dead.Payload[:5]...), single[10:]...)
}

func (s *site) post(body []byte) (code int) {
	s.Helper()
	answer, err := http.Post(s.url+"/v1/frames", "application/avro", strings.NewReader(string(body)))
	if err != nil {
		s.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

func jsonNumber(n int) string {
	text, _ := json.Marshal(n) // a number
	return string(text)
}
