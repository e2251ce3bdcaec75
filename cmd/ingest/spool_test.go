package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/address/addresstest"
	"github.com/morphogenetic/oona/internal/audit"
	"github.com/morphogenetic/oona/schemas/avro"
)

// hopeless is how long a test waits before it fails. It is long enough for a very busy machine.
const hopeless = 8 * time.Minute

// await waits for a condition. If the condition does not become true, the test fails with the text that
// says returns.
func await(t *testing.T, holds func() bool, says func() string) {
	t.Helper()
	for deadline := time.Now().Add(hopeless); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(says())
		}
	}
}

// processArguments has the command line for a process of TestIngestProcess.
const processArguments = "OONATEST_INGEST_ARGUMENTS"

// TestIngestProcess is ingest. Other tests run it as a separate process.
func TestIngestProcess(t *testing.T) {
	arguments := os.Getenv(processArguments)
	if arguments == "" {
		t.Skip("other tests run it")
	}
	os.Args = append(os.Args[:1], strings.Split(arguments, "\n")...)
	main()
}

// ingestProcess is an ingest with a spool that is killed and started again.
type ingestProcess struct {
	t         *testing.T
	arguments []string
	wrap      func(command ...string) []string // changes the command of the process; may be nil
	url       string
	admin     string
	cmd       *exec.Cmd
	output    bytes.Buffer
	ended     chan struct{} // closed when the process has ended
	endErr    error         // what Wait returned; valid when ended is closed
}

func (p *ingestProcess) start() {
	p.t.Helper()
	p.launch()
	await(p.t, func() bool {
		select {
		case <-p.ended:
			p.t.Fatalf("ingest ends before it is ready: %v\n%s", p.endErr, p.output.String())
		default:
		}
		answer, err := http.Get(p.admin + "/readyz")
		return err == nil && answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
	}, func() string {
		p.kill()
		return "ingest is not ready: " + p.output.String()
	})
}

func (p *ingestProcess) launch() {
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
	p.ended = make(chan struct{})
	go func() {
		defer close(p.ended)
		p.endErr = p.cmd.Wait()
	}()
}

func (p *ingestProcess) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// client sends the frames of a run one after the other, each until it is accepted. accepted is the
// number of accepted frames, and spooled is the number of these that went to the spool.
type client struct {
	run      oona.RunID
	accepted atomic.Int64
	spooled  atomic.Int64
}

func (c *client) send(ctx context.Context, url string) {
	for ctx.Err() == nil {
		f := &oona.Frame{
			Run: c.run, Layer: "l", Producer: "p", Epoch: 1_790_000_000_000_000, Sequence: c.accepted.Load(),
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
			c.spooled.Add(1)
			c.accepted.Add(1)
		case answer.StatusCode == http.StatusOK:
			c.accepted.Add(1)
		case err == nil:
			bus.Pause(ctx, time.Millisecond)
		}
	}
}

// lives sends events of seeds, one life after the other, each event until it is accepted. accepted is
// the number of accepted events.
type lives struct {
	run      oona.RunID
	accepted atomic.Int64
}

func (l *lives) send(ctx context.Context, url string) {
	states := []oona.State{oona.Dormant, oona.Germinated, oona.Training, oona.Culled}
	for ctx.Err() == nil {
		accepted := l.accepted.Load()
		sequence := accepted % 3
		e := &oona.SeedEvent{
			Run: l.run, Layer: "l", Seed: oona.SeedID(accepted / 3), Sequence: sequence,
			At: oona.Micros(1_790_000_000_000_000 + accepted), From: states[sequence], To: states[sequence+1],
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
			l.accepted.Add(1)
		case err == nil:
			bus.Pause(ctx, time.Millisecond)
		}
	}
}

// missingEvents returns a text if acknowledged events are not on the bus, or if the audit flags some.
// Otherwise it returns "".
func missingEvents(t *testing.T, b *kafka.Bus, topics oona.Topics, of []lives) string {
	t.Helper()
	for i := range of {
		l := &of[i]
		found, err := audit.Run(t.Context(), b, audit.Options{Topics: topics, Runs: []oona.RunID{l.run}, Seed: oona.AnySeed}, func(*audit.Life) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if accepted := int(l.accepted.Load()); found.Events < accepted || found.Flagged() {
			return fmt.Sprintf("the audit of %s is %+v, and %d events were acknowledged", l.run, found, accepted)
		}
	}
	return ""
}

// Even with a spool, ingest does not start without the bus if it also reads the raw topic: nothing can
// be read from that topic, and its records need no spool.
func TestRawNeedsTheBusDespiteASpool(t *testing.T) {
	t.Parallel()
	admin := addresstest.Port(t)
	p := &ingestProcess{
		t: t, admin: fmt.Sprintf("http://127.0.0.1:%d", admin),
		arguments: []string{
			fmt.Sprintf("--brokers=127.0.0.1:%d", addresstest.Port(t)), "--instance=ingest-1", "--raw",
			"--listen=127.0.0.1:0", fmt.Sprintf("--admin-address=127.0.0.1:%d", admin), "--spool-directory=" + filepath.Join(t.TempDir(), "spool"), "--spool-headroom=0",
		},
	}
	p.launch()
	for {
		select {
		case <-p.ended:
			if exit, ok := errors.AsType[*exec.ExitError](p.endErr); !ok || exit.ExitCode() <= 0 {
				t.Errorf("ingest ends with %v", p.endErr)
			}
			if !strings.Contains(p.output.String(), bus.ErrUnreachable.Error()) {
				t.Errorf("ingest does not say why it ends: %s", p.output.String())
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
		if answer, err := http.Get(p.admin + "/readyz"); err == nil && answer.Body.Close() == nil && answer.StatusCode == http.StatusOK {
			p.kill()
			t.Fatalf("ingest is ready without the bus: %s", p.output.String())
		}
	}
}

// Ingest starts while the bus is down, and is killed again and again while clients send. When the bus
// is up again, it has every frame and every event that was acknowledged, and the frames of each run
// are in order.
func TestSpoolAfterKills(t *testing.T) {
	t.Parallel()
	brokerPort, listen, admin := addresstest.Port(t), addresstest.Port(t), addresstest.Port(t)
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
	if err := broker.Close(); err != nil { // now the bus is down
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
	var tellers [4]lives // of the first four runs of the clients
	var sending sync.WaitGroup
	for i := range clients {
		clients[i].run = oona.RunID(fmt.Sprintf("run-%d", i))
		sending.Go(func() { clients[i].send(ctx, p.url) })
	}
	for i := range tellers {
		tellers[i].run = oona.RunID(fmt.Sprintf("run-%d", i))
		sending.Go(func() { tellers[i].send(ctx, strings.TrimSuffix(p.url, "frames")+"events") })
	}
	more := func(what string, frames, events int64, count func(*client) *atomic.Int64) {
		t.Helper()
		progress := func() (sent, least int64) {
			for i := range clients {
				sent += count(&clients[i]).Load()
			}
			least = math.MaxInt64
			for i := range tellers {
				least = min(least, tellers[i].accepted.Load())
			}
			return sent, least
		}
		sent, least := progress()
		var now, then int64
		await(t, func() bool {
			now, then = progress()
			return now >= sent+frames && then >= least+events
		}, func() string {
			p.kill()
			return fmt.Sprintf("%d more frames %s, and %d more events of each run: %s", now-sent, what, then-least, p.output.String())
		})
	}
	for range 5 {
		more("went to the spool", 20, 2, func(c *client) *atomic.Int64 { return &c.spooled })
		time.Sleep(rand.N(300 * time.Millisecond)) // so that ingest is killed at any point
		p.kill()
		p.start()
	}
	broker = startBroker(t, data, brokerPort)
	defer broker.Close()
	b = kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, slog.New(slog.DiscardHandler))
	more("were accepted", 20, 0, func(c *client) *atomic.Int64 { return &c.accepted }) // on the bus, or in the spool
	stop()
	sending.Wait()
	var missing string
	await(t, func() bool {
		missing = missingFrames(t, b, topics, clients[:]) + missingEvents(t, b, topics, tellers[:])
		return missing == ""
	}, func() string {
		p.kill()
		return missing + "\n" + p.output.String()
	})
}

func startBroker(t *testing.T, data string, port int) *embedded.Broker {
	t.Helper()
	broker, err := embedded.Start(t.Context(), embedded.Options{DataDir: data, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	return broker
}

// missingFrames returns a text if acknowledged frames are not on the bus, and "" otherwise. The test
// fails if a frame is on the bus before an earlier one. Frames may be on the bus more than once.
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
	for i := range clients {
		c := &clients[i]
		if accepted := c.accepted.Load(); next[c.run] < accepted {
			return fmt.Sprintf("the bus has %d frames of %s, and %d were acknowledged", next[c.run], c.run, accepted)
		}
	}
	return ""
}
