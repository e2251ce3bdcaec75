package localkafka

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMissingTools(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := Start(t.Context(), Options{Dir: t.TempDir()}); !errors.Is(err, ErrNoJava) {
		t.Errorf("without java: %v", err)
	}
	_, err := Jars(t.Context(), t.TempDir(), kafka)
	if !errors.Is(err, ErrNoMaven) {
		t.Errorf("without mvn: %v", err)
	}
}

// If Maven fails, no incomplete directory of jars is left.
func TestFetchThatFails(t *testing.T) {
	bin, cache := t.TempDir(), t.TempDir()
	script := "#!/bin/sh\nmkdir lib && touch lib/half.jar\necho could not transfer artifact\nexit 1\n"
	if err := os.WriteFile(filepath.Join(bin, "mvn"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	if _, err := Jars(t.Context(), cache, kafka); err == nil || !strings.Contains(err.Error(), "could not transfer artifact") {
		t.Errorf("%v", err)
	}
	left, err := os.ReadDir(cache)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestProperties(t *testing.T) {
	c, err := create(Options{Dir: t.TempDir(), Port: 30000})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.String(); got != "127.0.0.1:30000,127.0.0.1:30001,127.0.0.1:30002" {
		t.Errorf("addresses %s", got)
	}
	lines := strings.Split(c.properties(c.nodes[1]), "\n")
	for _, want := range []string{
		"node.id=2",
		"controller.quorum.voters=1@127.0.0.1:30003,2@127.0.0.1:30004,3@127.0.0.1:30005",
		"listeners=PLAINTEXT://127.0.0.1:30001,CONTROLLER://127.0.0.1:30004",
		"min.insync.replicas=2",
		"auto.create.topics.enable=false",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("missing: %s", want)
		}
	}
}

// A single node on an address that other network namespaces reach has topics with one
// replica.
func TestSingleNode(t *testing.T) {
	c, err := create(Options{Dir: t.TempDir(), Port: 30000, Nodes: 1, Host: "10.1.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.String(); got != "10.1.0.1:30000" {
		t.Errorf("addresses %s", got)
	}
	lines := strings.Split(c.properties(c.nodes[0]), "\n")
	for _, want := range []string{
		"controller.quorum.voters=1@127.0.0.1:30001",
		"listeners=PLAINTEXT://10.1.0.1:30000,CONTROLLER://127.0.0.1:30001",
		"advertised.listeners=PLAINTEXT://10.1.0.1:30000",
		"default.replication.factor=1",
		"min.insync.replicas=1",
		"offsets.topic.replication.factor=1",
		"transaction.state.log.min.isr=1",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("missing: %s", want)
		}
	}
}

// Java finds a name for each address that a node listens on without asking the DNS.
func TestNamesOfListeners(t *testing.T) {
	java := filepath.Join(t.TempDir(), "java")
	script := "#!/bin/sh\nfor argument; do case $argument in -Djdk.net.hosts.file=*) cat ${argument#*=};; esac; done; echo end\n"
	if err := os.WriteFile(java, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"", "127.0.0.1", "10.1.0.1"} {
		c, err := create(Options{Dir: t.TempDir(), Port: 30000, Nodes: 1, Host: host, Secure: &Secure{Listeners: []Listener{{Name: "scram", SASL: true}}}})
		if err != nil {
			t.Fatal(err)
		}
		n := c.nodes[0]
		if err := errors.Join(c.write(n), n.start(java, "lib", false)); err != nil {
			t.Fatal(err)
		}
		hosts := n.lastLog()
		for deadline := time.Now().Add(5 * time.Minute); !strings.HasSuffix(hosts, "end"); hosts = n.lastLog() {
			if !sleep(t.Context(), 10*time.Millisecond) || time.Now().After(deadline) {
				t.Fatalf("the script does not end: %s", hosts)
			}
		}
		for _, address := range n.listens() {
			ip, _, err := net.SplitHostPort(address)
			if err != nil || strings.Count("\n"+hosts, "\n"+ip+" ") != 1 {
				t.Errorf("Options.Host %q: %s (%v) does not have one name in:\n%s", host, ip, err, hosts)
			}
		}
	}
}

// A broker behind a proxy names the proxy's port to its clients, and listens on another.
func TestRoutes(t *testing.T) {
	c, err := create(Options{Dir: t.TempDir(), Port: 30000, ProxyPort: 30006})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Routes()[2], (Route{Proxy: "127.0.0.1:30008", Target: "127.0.0.1:30011"}); got != want {
		t.Errorf("route %+v, want %+v", got, want)
	}
	lines := strings.Split(c.properties(c.nodes[2]), "\n")
	for _, want := range []string{
		"listeners=PLAINTEXT://127.0.0.1:30002,CONTROLLER://127.0.0.1:30005,PROXIED://127.0.0.1:30011",
		"advertised.listeners=PLAINTEXT://127.0.0.1:30002,PROXIED://127.0.0.1:30008",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("missing: %s", want)
		}
	}
	if plain, err := create(Options{Dir: t.TempDir(), Port: 30000}); err != nil || plain.Routes() != nil {
		t.Errorf("without proxies: %v, %v", plain.Routes(), err)
	}
}

func TestFreePorts(t *testing.T) {
	ports, err := choosePorts(0, 6)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ports)
	if len(slices.Compact(ports)) != 6 {
		t.Errorf("ports %v", ports)
	}
}

// One identifier in 64 would begin with "-" if all its bits were random.
func TestClusterID(t *testing.T) {
	for range 10_000 {
		if id := newClusterID(); len(id) != 22 || strings.HasPrefix(id, "-") {
			t.Fatalf("%q", id)
		}
	}
}

// Another process can read the state.
func TestState(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); !errors.Is(err, ErrNoCluster) {
		t.Errorf("%v", err)
	}
	c, err := create(Options{Dir: dir, Port: 30000})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again.id != c.id || again.String() != c.String() || again.nodes[2].dir != c.nodes[2].dir {
		t.Errorf("%+v, want %+v", again, c)
	}
	if err := os.WriteFile(stateFile(dir), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || errors.Is(err, ErrNoCluster) {
		t.Errorf("a state without nodes: %v", err)
	}
}

// A process that has a node's PID but is not Kafka is not stopped.
func TestAnotherProcessIsNotOurs(t *testing.T) {
	if _, err := os.Stat("/proc/self/cmdline"); err != nil {
		t.Skip("without /proc a process cannot be told from another")
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Error("the process was ended, and not by this test")
		}
	}()
	c, err := create(Options{Dir: t.TempDir(), Port: 30000})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		n.PID = cmd.Process.Pid
	}
	if ids := c.Running(); len(ids) > 0 {
		t.Errorf("running: %v", ids)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(cmd.Process.Pid, 0); err != nil {
		t.Errorf("the process is gone: %v", err)
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	c, err := create(Options{Dir: t.TempDir(), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.checkPorts(t.Context()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), listener.Addr().String()) {
		t.Errorf("%v", err)
	}
}

// The cluster works without any one of its nodes, and takes the node back. The test
// starts its own three brokers, in addition to those of make kafka-up.
func TestCluster(t *testing.T) {
	if os.Getenv("OONA_LOCALKAFKA") != "1" {
		t.Skip("SKIPPED: starts and kills three Kafka brokers, for a minute and 1 GB; set OONA_LOCALKAFKA=1")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	opts := Options{Dir: t.TempDir()}
	c, err := Start(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		if ids := c.Running(); len(ids) > 0 {
			t.Errorf("still running: %v", ids)
		}
	})
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := (probe{client, 3, "t"}).create(ctx); err != nil {
		t.Fatal(err)
	}
	sent := 0
	produce := func() {
		t.Helper()
		for range 30 {
			if err := client.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr(); err != nil {
				t.Fatal(err)
			}
			sent++
		}
	}
	produce()
	if err := c.Kill(2); err != nil {
		t.Fatal(err)
	}
	if ids := c.Running(); !slices.Equal(ids, []int{1, 3}) {
		t.Errorf("running: %v", ids)
	}
	produce()
	if err := c.Restart(ctx, 2); err != nil {
		t.Fatal(err)
	}
	produce()
	if err := c.Restart(ctx, 1); err != nil { // node 1 runs
		t.Fatal(err)
	}
	// Another process finds the same cluster, and starts nothing.
	again, err := Start(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range again.nodes {
		if n.PID != c.nodes[i].PID {
			t.Errorf("node %d is process %d, was %d", n.ID, n.PID, c.nodes[i].PID)
		}
	}
	client.AddConsumeTopics("t")
	for read := 0; read < sent; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %d of %d: %v", read, sent, err)
		}
		read += fetches.NumRecords()
	}
	if err := c.Kill(4); err == nil {
		t.Error("killed a node that is not there")
	}
	if err := c.Remove(); err == nil {
		t.Error("deleted the data of nodes that run")
	}
}

// Secure listeners have ports after all others, and their own certificates and users.
func TestSecureListeners(t *testing.T) {
	secure := &Secure{
		Listeners:  []Listener{{Name: "sasl", SASL: true, Session: time.Minute}, {Name: "mtls", ClientCA: []byte("ca")}},
		Users:      map[string]string{"u": "p", "a": "b"},
		SuperUsers: []string{"CN=admin"},
	}
	c, err := create(Options{Dir: t.TempDir(), Port: 30000, Nodes: 1, Host: "10.1.0.1", Secure: secure})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.SecureAddrs("mtls"); !slices.Equal(got, []string{"10.1.0.1:30003"}) {
		t.Errorf("addresses %v", got)
	}
	lines := strings.Split(c.properties(c.nodes[0]), "\n")
	for _, want := range []string{
		"listeners=PLAINTEXT://10.1.0.1:30000,CONTROLLER://127.0.0.1:30001,SASL://10.1.0.1:30002,MTLS://10.1.0.1:30003",
		"advertised.listeners=PLAINTEXT://10.1.0.1:30000,SASL://10.1.0.1:30002,MTLS://10.1.0.1:30003",
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT,SASL:SASL_SSL,MTLS:SSL",
		"listener.name.sasl.plain.sasl.jaas.config=" + securePlain + ` user_a="b" user_u="p";`,
		"listener.name.sasl.scram-sha-512.connections.max.reauth.ms=60000",
		"listener.name.mtls.ssl.client.auth=required",
		"super.users=User:ANONYMOUS;User:CN=admin",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("missing: %s", want)
		}
	}
	if slices.Contains(lines, "listener.name.sasl.ssl.client.auth=required") {
		t.Error("the listener of SASL wants client certificates, too")
	}
	if err := c.checkSecure(Options{}); err == nil {
		t.Error("the listeners of an earlier start are not the ones that are asked for")
	}
}
