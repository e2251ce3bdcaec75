package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/audit"
	"github.com/morphogenetic/oona/schemas/avro"
)

// processArguments has the command line for a process of TestIngestProcess.
const processArguments = "OONATEST_INGEST_ARGUMENTS"

// TestIngestProcess is run as a process of its own by other tests: it is ingest.
func TestIngestProcess(t *testing.T) {
	arguments := os.Getenv(processArguments)
	if arguments == "" {
		t.Skip("it is run by other tests")
	}
	os.Args = append(os.Args[:1], strings.Split(arguments, "\n")...)
	main()
}

// freePort returns a port that nothing listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // TCP
}

// ingestProcess is an ingest with a spool that is killed and started again.
type ingestProcess struct {
	t         *testing.T
	arguments []string
	wrap      func(command ...string) []string // of the process's command; may be nil
	url       string
	admin     string
	cmd       *exec.Cmd
	output    bytes.Buffer
}

func (p *ingestProcess) start() {
	p.t.Helper()
	p.output.Reset()
	command := []string{os.Args[0], "-test.run=^TestIngestProcess$"}
	if p.wrap != nil {
		command = p.wrap(command...)
	}
	p.cmd = exec.CommandContext(p.t.Context(), command[0], command[1:]...)
	p.cmd.Env = append(os.Environ(), processArguments+"="+strings.Join(p.arguments, "\n"))
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if answer, err := http.Get(p.admin + "/readyz"); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			p.kill()
			p.t.Fatalf("ingest is not ready: %s", p.output.Bytes())
		}
	}
}

func (p *ingestProcess) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// client sends the frames of a run one after the other, and each again until it is
// accepted. accepted is how many were.
type client struct {
	run      oona.RunID
	accepted int
	spooled  int
}

func (c *client) send(ctx context.Context, url string) {
	for ctx.Err() == nil {
		f := &oona.Frame{
			Run: c.run, Layer: "l", Producer: "p", Epoch: 1_790_000_000_000_000, Sequence: int64(c.accepted),
			ObservedAt: oona.MicrosOf(time.Now()), Seeds: []oona.SeedID{0}, States: []oona.State{oona.Training},
		}
		answer, err := http.Post(url, "application/avro", bytes.NewReader(avro.AppendFrame(nil, f)))
		if err != nil {
			bus.Pause(ctx, time.Millisecond)
			continue
		}
		_, err = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		switch {
		case answer.StatusCode == http.StatusAccepted:
			c.spooled++
			c.accepted++
		case answer.StatusCode == http.StatusOK:
			c.accepted++
		case err == nil:
			bus.Pause(ctx, time.Millisecond)
		}
	}
}

// lives sends events of seeds, one life after the other, and each again until it is accepted.
// accepted is how many were.
type lives struct {
	run      oona.RunID
	accepted int
}

func (l *lives) send(ctx context.Context, url string) {
	states := []oona.State{oona.Dormant, oona.Germinated, oona.Training, oona.Culled}
	for ctx.Err() == nil {
		sequence := l.accepted % 3
		e := &oona.SeedEvent{
			Run: l.run, Layer: "l", Seed: oona.SeedID(l.accepted / 3), Sequence: int64(sequence),
			At: oona.Micros(1_790_000_000_000_000 + l.accepted), From: states[sequence], To: states[sequence+1],
		}
		answer, err := http.Post(url, "application/avro", bytes.NewReader(avro.AppendEvent(nil, e)))
		if err != nil {
			bus.Pause(ctx, time.Millisecond)
			continue
		}
		_, err = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		switch {
		case answer.StatusCode == http.StatusAccepted, answer.StatusCode == http.StatusOK:
			l.accepted++
		case err == nil:
			bus.Pause(ctx, time.Millisecond)
		}
	}
}

// missingEvents returns which acknowledged events are not on the bus, or what is wrong with
// those that are.
func missingEvents(t *testing.T, b *kafka.Bus, topics oona.Topics, of []lives) string {
	t.Helper()
	for _, l := range of {
		found, err := audit.Run(t.Context(), b, audit.Options{Topics: topics, Run: l.run, Seed: oona.AnySeed}, func(*audit.Life) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if found.Events < l.accepted || found.Flagged() {
			return fmt.Sprintf("the bus has %+v of %s, and %d were acknowledged", found, l.run, l.accepted)
		}
	}
	return ""
}

// Ingest starts while the bus is away, and is killed again and again while clients send.
// Every frame and every event that was acknowledged is on the bus when it is there, and the
// frames of a run are in order.
func TestSpoolAfterKills(t *testing.T) {
	t.Parallel()
	brokerPort, listen, admin := freePort(t), freePort(t), freePort(t)
	topics, err := oona.NewTopics("spooled")
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	broker := startBroker(t, data, brokerPort)
	b := kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, slog.New(slog.DiscardHandler))
	if _, err := b.Apply(t.Context(), append(topics.Specs(2), topics.EventSpecs(2)...)); err != nil {
		t.Fatal(err)
	}
	if err := broker.Close(); err != nil { // the bus is away
		t.Fatal(err)
	}
	p := &ingestProcess{
		t: t, url: fmt.Sprintf("http://127.0.0.1:%d/v1/frames", listen), admin: fmt.Sprintf("http://127.0.0.1:%d", admin),
		arguments: []string{
			fmt.Sprintf("--brokers=127.0.0.1:%d", brokerPort), "--prefix=spooled", "--instance=ingest-1",
			fmt.Sprintf("--listen=127.0.0.1:%d", listen), fmt.Sprintf("--admin-address=127.0.0.1:%d", admin),
			"--spool-directory=" + t.TempDir(), "--spool-after=300ms", "--spool-headroom=0",
		},
	}
	p.start()
	defer func() { p.kill() }()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients [8]client
	var tellers [4]lives // of the runs of some clients
	var sending sync.WaitGroup
	for i := range clients {
		clients[i].run = oona.RunID(fmt.Sprintf("run-%d", i))
		sending.Go(func() { clients[i].send(ctx, p.url) })
	}
	for i := range tellers {
		tellers[i].run = oona.RunID(fmt.Sprintf("run-%d", i))
		sending.Go(func() { tellers[i].send(ctx, strings.TrimSuffix(p.url, "frames")+"events") })
	}
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for range 5 {
		time.Sleep(time.Duration(50+random.IntN(300)) * time.Millisecond)
		p.kill()
		p.start()
	}
	broker = startBroker(t, data, brokerPort)
	defer broker.Close()
	b = kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, slog.New(slog.DiscardHandler))
	time.Sleep(500 * time.Millisecond) // some frames go to the bus, or behind the spool
	stop()
	sending.Wait()
	spooled := 0
	for _, c := range clients {
		spooled += c.spooled
	}
	if spooled < 100 {
		t.Fatalf("%d frames went to the spool", spooled)
	}
	for _, l := range tellers {
		if l.accepted < 10 {
			t.Fatalf("%d events of %s were accepted", l.accepted, l.run)
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		missing := missingFrames(t, b, topics, clients[:]) + missingEvents(t, b, topics, tellers[:])
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s\n%s", missing, p.output.Bytes())
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func startBroker(t *testing.T, data string, port int) *embedded.Broker {
	t.Helper()
	broker, err := embedded.Start(t.Context(), embedded.Options{DataDir: data, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	return broker
}

// missingFrames returns which acknowledged frames are not on the bus. Frames may be there
// more than once, but none comes before an earlier one has come.
func missingFrames(t *testing.T, b *kafka.Bus, topics oona.Topics, clients []client) string {
	t.Helper()
	extents, err := b.Extents(t.Context(), topics.SeedMetrics)
	if err != nil {
		t.Fatal(err)
	}
	next := make(map[oona.RunID]int64)
	for partition, extent := range extents[topics.SeedMetrics] {
		err := b.Read(t.Context(), topics.SeedMetrics, bus.Range{Partition: int32(partition), From: extent.Start, End: extent.End}, func(m *message.Message) error {
			var d avro.FrameDecoder
			var f oona.Frame
			if _, err := d.Decode(m.Payload, &f); err != nil {
				return err
			}
			if f.Sequence > next[f.Run] {
				return fmt.Errorf("frame %d of %s comes before frame %d", f.Sequence, f.Run, next[f.Run])
			}
			next[f.Run] = max(next[f.Run], f.Sequence+1)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range clients {
		if next[c.run] < int64(c.accepted) {
			return fmt.Sprintf("the bus has %d frames of %s, and %d were acknowledged", next[c.run], c.run, c.accepted)
		}
	}
	return ""
}
