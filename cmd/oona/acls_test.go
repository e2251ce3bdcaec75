package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/localkafka"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/internal/tlsfiles/tlstest"
	"github.com/morphogenetic/oona/schemas/avro"
)

// documentedACLs returns the ACLs that docs/security.md gives to programs.
func documentedACLs(t *testing.T) (all []localkafka.ACL) {
	t.Helper()
	page, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		rest, is := strings.CutPrefix(strings.TrimSpace(line), "acl --allow-principal User:")
		if !is {
			continue
		}
		fields := strings.Fields(rest)
		prefixed := strings.HasSuffix(rest, "--resource-pattern-type prefixed")
		var operations []string
		for i := 1; i+1 < len(fields); i += 2 {
			switch flag, value := fields[i], fields[i+1]; flag {
			case "--operation":
				operations = append(operations, value)
			case "--topic", "--group":
				for _, operation := range operations {
					all = append(all, localkafka.ACL{User: fields[0], Operation: operation, Resource: flag[2:], Name: value, Prefixed: prefixed})
				}
			case "--resource-pattern-type":
			default:
				t.Fatalf("docs/security.md has an ACL with %s: %s", flag, line)
			}
		}
	}
	if len(all) == 0 {
		t.Fatal("docs/security.md has no ACLs")
	}
	return all
}

// guarded is a broker with SASL and the users of docs/security.md.
type guarded struct {
	*localkafka.Cluster
	t         *testing.T
	ca        *tlstest.Authority
	passwords map[string]string
}

func startWithACLs(t *testing.T, acls []localkafka.ACL) *guarded {
	t.Helper()
	if os.Getenv("OONA_KAFKA") == "" && os.Getenv("OONA_REQUIRE_KAFKA") != "1" {
		t.Skip("SKIPPED, ACLS NOT TESTED ON REAL KAFKA: it starts a broker of its own if OONA_KAFKA is set, or OONA_REQUIRE_KAFKA=1")
	}
	i := &guarded{t: t, ca: tlstest.NewAuthority(t, "ca"), passwords: make(map[string]string)}
	for n, a := range acls {
		if i.passwords[a.User] == "" {
			i.passwords[a.User] = fmt.Sprintf("s3cret-of-%s-%d", a.User, n)
		}
	}
	server, err := i.ca.Authority.Issue(time.Hour, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	secure := &localkafka.Secure{Listeners: []localkafka.Listener{{Name: "sasl", Certificate: server, SASL: true}}, Users: i.passwords, Audit: true}
	if i.Cluster, err = localkafka.Start(t.Context(), localkafka.Options{Dir: t.TempDir(), Nodes: 1, Secure: secure}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := i.Allow(t.Context(), acls...); err != nil {
		t.Fatal(err)
	}
	return i
}

// as returns the flags that connect as a user of docs/security.md.
func (i *guarded) as(user, mechanism string) []string {
	return []string{
		"--brokers", i.SecureAddrs("sasl")[0], "--bus-tls", "--bus-tls-ca-file", i.ca.File,
		"--bus-sasl", mechanism, "--bus-sasl-username", user, "--bus-sasl-password-file", i.secretFile(i.passwords[user]),
	}
}

func (i *guarded) secretFile(content string) string {
	i.t.Helper()
	path := filepath.Join(i.t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		i.t.Fatal(err)
	}
	return path
}

// must runs oona as a user.
func (i *guarded) must(user string, args ...string) string {
	i.t.Helper()
	status, out, messages := run(i.t, append(args, i.as(user, "scram-sha-512")...)...)
	if status != 0 {
		i.t.Fatalf("%s: %v: status %d, %s %s", user, args, status, out, messages)
	}
	return out
}

var audited = regexp.MustCompile(`Principal = User:(\S+) is (Allowed|Denied) operation = (\w+) from host = \S+ on resource = (\w+):\w+:(\S+) for request = (\w+) .*`)

// audit checks that nothing was denied, and that each ACL was needed.
func (i *guarded) audit(acls []localkafka.ACL) {
	i.t.Helper()
	log, err := i.Log(1)
	if err != nil {
		i.t.Fatal(err)
	}
	needed := make(map[localkafka.ACL]bool)
	seen := make(map[string]bool)
	for _, line := range audited.FindAllStringSubmatch(string(log), -1) {
		user, verdict, operation, resource, name := line[1], line[2], line[3], line[4], line[5]
		if user == "ANONYMOUS" {
			continue
		}
		if key := strings.Join(line[1:7], " "); !seen[key] {
			seen[key] = true
			if verdict == "Denied" {
				i.t.Errorf("%s may not %s %s %s (%s)", user, operation, resource, name, line[6])
			}
		}
		for _, a := range acls {
			covers := a.Name == name || a.Prefixed && strings.HasPrefix(name, a.Name)
			if a.User == user && strings.EqualFold(a.Resource, resource) && covers && same(a.Operation, operation) {
				needed[a] = true
			}
		}
	}
	for _, a := range acls {
		if !needed[a] && a.Name != "kasmina.telemetry.seed.overflow" { // 64,000 seeds would be needed
			i.t.Errorf("nobody needed %+v", a)
		}
	}
	if i.t.Failed() {
		for _, key := range slices.Sorted(maps.Keys(seen)) {
			i.t.Log(key)
		}
	}
}

func same(documented, operation string) bool {
	return strings.EqualFold(documented, strings.ReplaceAll(operation, "_", ""))
}

// postEvent sends an event to an ingest.
func postEvent(t *testing.T, url string) {
	t.Helper()
	body := avro.AppendEvent(nil, &oona.SeedEvent{Run: "acls", Layer: "enc.0", Seed: 1, At: oona.MicrosOf(time.Now()), To: oona.Germinated})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/events", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/avro")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("an event is answered %d %s (%v)", answer.StatusCode, text, err)
	}
}

// Each program does all that it must do with the ACLs of docs/security.md, on real Kafka,
// and needs each of them. No program prints a password.
func TestACLs(t *testing.T) {
	onlyWithoutRaceDetector(t)
	acls := documentedACLs(t)
	i := startWithACLs(t, acls)
	s := &secured{t: t, bin: t.TempDir()}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", s.bin, "../ingest", "../aggregate", "../exporter").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	i.must("oona-operator", "topics", "apply", "--partitions=1", "--window-length=1s")
	i.must("oona-operator", "topics", "check")

	admin := []string{"--admin-address=127.0.0.1:0"}
	ingest := s.start("ingest", slices.Concat(admin, []string{"--listen=127.0.0.1:0"}, i.as("oona-ingest", "scram-sha-256")), adminListens, acceptFrames)
	raw := s.start("ingest", slices.Concat(admin, []string{"--listen=127.0.0.1:0", "--raw", "--instance=raw"}, i.as("oona-ingest-raw", "plain")), adminListens, acceptFrames)
	for _, address := range []string{ingest[acceptFrames], raw[acceptFrames]} {
		postEvent(t, "http://"+address)
	}
	s.start("aggregate", slices.Concat(admin, []string{"--group-instance=one"}, i.as("oona-aggregate", "scram-sha-512")), adminListens)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer receiver.Close()
	exporter := s.start("exporter", slices.Concat(admin, []string{"--remote-write-url=" + receiver.URL + "/api/v1/write"}, i.as("oona-exporter", "scram-sha-512")), adminListens)

	status, _, messages := run(t, "smoke", "--ingest=http://"+ingest[acceptFrames], "--exporter=http://"+exporter[adminListens], "--window-length=1s", "--timeout=5m")
	if status != 0 {
		t.Errorf("smoke: status %d, %s\n%s", status, messages, s.log.String())
	}
	i.trouble()
	if got := statusOf(t, nil, "http://"+exporter[adminListens]+"/v1/status?run=nobody", ""); got != http.StatusNotFound { // 503: a side topic cannot be read
		t.Errorf("the status of an unknown run is answered %d", got)
	}
	// One whose group has no commit looks at the rollups.
	another := localkafka.ACL{User: "oona-aggregate", Operation: "read", Resource: "group", Name: "another"}
	if err := i.Allow(t.Context(), another); err != nil {
		t.Fatal(err)
	}
	second := s.start("aggregate", slices.Concat(admin, []string{"--group=another"}, i.as("oona-aggregate", "scram-sha-512")), adminListens)
	for deadline := time.Now().Add(hopeless); statusOf(t, nil, "http://"+second[adminListens]+"/readyz", "") != http.StatusOK; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the second aggregator is not ready")
		}
	}
	i.must("oona-operator", "topics", "check")
	i.must("oona-operator", "windows", "show")
	i.must("oona-operator", "windows", "apply", "--from", time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "--window-length=2s", "--yes",
		"--catalogue", catalogueFile(t, "metrics: {energy: {group: health}}"))
	i.committed()
	i.must("oona-operator", "topics", "apply", "--partitions=1", "--window-length=2s", "--max-message-bytes=2000000")
	i.must("oona-operator", "dead-letters", "list")
	i.must("oona-operator", "dead-letters", "discard", "--topic=metrics.dead", "--yes")
	i.must("oona-operator", "group", "show")
	exported := i.secretFile(i.must("oona-operator", "group", "export"))
	i.must("oona-operator", "group", "import", exported, "--group", "oona-restored", "--yes")
	for _, args := range [][]string{{"kasmina.telemetry.seed.metrics"}, {"kasmina.oona.settings"}, {"kasmina/telemetry/layer/+/health"}, {}} {
		i.must("oona-watch", append([]string{"watch", "--from=beginning", "--count=1"}, args...)...)
	}
	if out := i.must("oona-watch", "top", "--once"); strings.Contains(out, "\nfault: ") {
		t.Errorf("oona top: %s", out)
	}
	i.must("oona-watch", "replay", "--archive", filepath.Join(t.TempDir(), "archive"))
	i.must("oona-watch", "tensors", "gc", "--tensor-store=directory", "--tensor-directory="+t.TempDir())
	startedOver, itsGroup := i.startOver(s)
	i.audit(acls)
	i.lose("http://"+ingest[adminListens], http.StatusOK, localkafka.ACL{User: "oona-ingest", Operation: "write", Resource: "topic", Name: "kasmina.telemetry.seed.metrics"})
	i.lose("http://"+startedOver, http.StatusServiceUnavailable, itsGroup) // the others' commits need records that are deleted
	i.refuse(s.bin)
	s.mu.Lock()
	defer s.mu.Unlock()
	for user, password := range i.passwords {
		if strings.Contains(s.log.String(), password) {
			t.Errorf("a log has the password of %s", user)
		}
	}
}

// committed waits until the aggregator has committed what the log has now: it has read the
// catalogue of the last configuration.
func (i *guarded) committed() {
	i.t.Helper()
	anybody := kafka.New(kafka.Config{Brokers: i.Addrs(), ClientID: "anybody"}, nil)
	topic := defaultNames(i.t).SeedMetrics
	extents, err := anybody.Extents(i.t.Context(), topic)
	if err != nil {
		i.t.Fatal(err)
	}
	await(i.t, "the commit of the aggregator", func() bool { return committedTo(i.t, anybody, "oona-aggregate", topic, extents[topic]) })
}

// startOver deletes the records of the log, and starts an aggregator with --from-here in a
// group without commits. It writes the incarnation to the log and to the settings topic.
// startOver returns its admin address and the permission for its group.
func (i *guarded) startOver(s *secured) (address string, group localkafka.ACL) {
	i.t.Helper()
	topics, err := oona.NewTopics("kasmina")
	if err != nil {
		i.t.Fatal(err)
	}
	watched := kafka.New(kafka.Config{Brokers: i.Addrs(), ClientID: "anybody"}, nil)
	ends := func() (metrics, settings int64) {
		extents, err := watched.Extents(i.t.Context(), topics.SeedMetrics, topics.Settings)
		if err != nil {
			i.t.Fatal(err)
		}
		return extents[topics.SeedMetrics][0].End, extents[topics.Settings][0].End
	}
	end, before := ends()
	settings := sarama.NewConfig()
	settings.Version = sarama.V2_8_0_0
	admin, err := sarama.NewClusterAdmin(i.Addrs(), settings)
	if err != nil {
		i.t.Fatal(err)
	}
	if err := errors.Join(admin.DeleteRecords(topics.SeedMetrics, map[int32]int64{0: end}), admin.Close()); err != nil {
		i.t.Fatal(err)
	}
	group = localkafka.ACL{User: "oona-aggregate", Operation: "read", Resource: "group", Name: "from-here"}
	if err := i.Allow(i.t.Context(), group); err != nil {
		i.t.Fatal(err)
	}
	third := s.start("aggregate", slices.Concat([]string{"--admin-address=127.0.0.1:0", "--group=from-here", "--from-here"}, i.as("oona-aggregate", "scram-sha-512")), adminListens)
	for deadline := time.Now().Add(hopeless); ; time.Sleep(200 * time.Millisecond) {
		if _, after := ends(); after > before {
			return third[adminListens], group
		}
		if time.Now().After(deadline) {
			i.t.Fatalf("no incarnation came to the settings topic\n%s", s.log.String())
		}
	}
}

// lose takes a permission from a running worker. It says so at /readyz, with a status, and
// goes on when it has the permission again.
func (i *guarded) lose(worker string, status int, a localkafka.ACL) {
	i.t.Helper()
	until := func(what string, done func(status int, says string) bool) {
		i.t.Helper()
		var says string
		for deadline := time.Now().Add(hopeless); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
			response, err := http.Get(worker + "/readyz")
			if err != nil {
				i.t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if says = string(body); err == nil && done(response.StatusCode, says) {
				return
			}
		}
		i.t.Errorf("%s %+v, the worker does not say so: %s", what, a, says)
	}
	if err := i.Forbid(i.t.Context(), a); err != nil {
		i.t.Fatal(err)
	}
	until("without", func(got int, says string) bool { return got == status && strings.Contains(says, bus.ErrDenied.Error()) })
	if err := i.Allow(i.t.Context(), a); err != nil {
		i.t.Fatal(err)
	}
	until("with", func(got int, says string) bool {
		return got == http.StatusOK && !strings.Contains(says, bus.ErrDenied.Error())
	})
}

// refuse starts each program with a wrong password and with a wrong token.
func (i *guarded) refuse(bin string) {
	i.t.Helper()
	const password, token = "wr0ng-password", "wr0ng-token"
	wrong := i.secretFile(password)
	tls := []string{"--brokers", i.SecureAddrs("sasl")[0], "--bus-tls", "--bus-tls-ca-file", i.ca.File, "--log-level=debug"}
	for setting, identity := range map[string][]string{
		"--bus-sasl-password-file": {"--bus-sasl=plain", "--bus-sasl-username=oona-ingest", "--bus-sasl-password-file", wrong},
		"--bus-sasl-username":      {"--bus-sasl=scram-sha-256", "--bus-sasl-username=oona-ingest", "--bus-sasl-password-file", wrong},
		"--bus-sasl-token-file":    {"--bus-sasl=oauthbearer", "--bus-sasl-token-file", i.secretFile(token)},
	} {
		args := slices.Concat(tls, identity)
		for _, name := range []string{"ingest", "aggregate", "exporter"} {
			out, err := exec.CommandContext(i.t.Context(), filepath.Join(bin, name), append(args, "--admin-address=127.0.0.1:0")...).CombinedOutput()
			if err == nil || !strings.Contains(string(out), setting) {
				i.t.Errorf("%s with a wrong %s: %v\n%s", name, setting, err, out)
			}
			noSecret(i.t, name, string(out), password, token)
		}
		status, out, messages := run(i.t, append([]string{"topics", "check"}, args...)...)
		if status == 0 || !strings.Contains(messages, setting) {
			i.t.Errorf("oona with a wrong %s: status %d, %s", setting, status, messages)
		}
		noSecret(i.t, "oona", out+messages, password, token)
	}
}

// trouble publishes records that a trainer and others could, and waits until all but the
// overflow topic have one.
func (i *guarded) trouble() {
	i.t.Helper()
	const user = "trainer"
	trainer := kafka.Config{
		Brokers: i.SecureAddrs("sasl"), ClientID: "trainer",
		Security: kafka.Security{TLS: true, TLSFiles: tlsfiles.ClientFlags{CAFile: i.ca.File}, SASL: "scram-sha-512", Username: user, PasswordFile: i.secretFile(i.passwords[user])},
	}
	anybody := kafka.Config{Brokers: i.Addrs(), ClientID: "anybody"}
	topics, err := oona.NewTopics("kasmina")
	if err != nil {
		i.t.Fatal(err)
	}
	sequence, now := int64(0), time.Now()
	at := func(d time.Duration) []byte {
		f := watchedFrame("trouble", "enc.0", sequence)
		f.Epoch, f.ObservedAt = oona.MicrosOf(now), oona.MicrosOf(now.Add(d))
		sequence++
		return avro.AppendFrame(nil, f)
	}
	i.publish(trainer, topics.SeedRaw, []byte("no frame"), at(0))
	i.publish(anybody, topics.SeedMetrics, []byte("no frame"), at(0), at(-time.Minute), at(24*time.Hour))
	admin := kafka.New(anybody, nil)
	for deadline := time.Now().Add(hopeless); ; time.Sleep(200 * time.Millisecond) {
		extents, err := admin.Extents(i.t.Context(), topics.Late, topics.Quarantine, topics.SeedMetricsDead, topics.SeedRawDead)
		if err != nil {
			i.t.Fatal(err)
		}
		empty := ""
		for topic, of := range extents {
			if of[0].End == 0 {
				empty = topic
			}
		}
		if empty == "" {
			return
		}
		if time.Now().After(deadline) {
			i.t.Errorf("no record came to %s", empty)
			return
		}
	}
}

func (i *guarded) publish(as kafka.Config, topic string, payloads ...[]byte) {
	i.t.Helper()
	p, err := kafka.New(as, nil).Publisher(bus.PublisherOptions{})
	if err != nil {
		i.t.Fatal(err)
	}
	for _, payload := range payloads {
		msg := bus.NewMessage(payload, bus.Target{Key: []byte("k")})
		msg.Metadata.Set(oona.HeaderPath, "ingest-1")
		err = errors.Join(err, p.Publish(i.t.Context(), topic, msg))
	}
	if err := errors.Join(err, p.Close()); err != nil {
		i.t.Fatal(err)
	}
}
