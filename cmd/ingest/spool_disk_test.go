//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/address/addresstest"
	"github.com/morphogenetic/oona/schemas/avro"
)

// smallDisk is a shell script that mounts a file system of 16 MiB at $1, fills half of it, and then
// runs the rest of its arguments as a command. It must run in its own mount namespace.
const smallDisk = `set -e
mount -t tmpfs -o size=16m oona "$1"
head -c 8388608 /dev/zero > "$1/other"
shift
exec "$@"`

func onSmallDisk(dir string, command ...string) []string {
	return append([]string{"unshare", "--user", "--map-root-user", "--mount", "sh", "-c", smallDisk, "sh", dir}, command...)
}

// fill sends frames of about 100 KB until one is not accepted with 202. It returns that answer.
func (c *client) fill(t *testing.T, url string) (status int, reason string) {
	t.Helper()
	for range 1000 {
		f := &oona.Frame{Run: c.run, Layer: "l", Producer: "p", Epoch: 1_790_000_000_000_000, Sequence: c.accepted.Load(), ObservedAt: oona.MicrosOf(time.Now())}
		values := make([]float32, 20_000)
		for i := range values {
			f.Seeds, f.States = append(f.Seeds, oona.SeedID(i)), append(f.States, oona.Training)
		}
		f.Metrics = []oona.Column{{Name: "reconstruction_loss", Values: values}}
		answer, err := http.Post(url, "application/avro", bytes.NewReader(avro.AppendFrame(nil, f)))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != http.StatusAccepted {
			var problem struct {
				Type string `json:"type"`
			}
			_ = json.Unmarshal(text, &problem) // an answer in another format has no type
			return answer.StatusCode, problem.Type
		}
		c.accepted.Add(1)
	}
	t.Fatal("the disk is not full after 1,000 frames")
	return 0, ""
}

// When the disk is full, ingest refuses frames with a reason. When the disk has space again, ingest
// accepts frames again. In the end, every frame that was answered with 202 is on the bus.
func TestSpoolOnASmallDisk(t *testing.T) {
	t.Parallel()
	mount := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "unshare", onSmallDisk(mount, "true")[1:]...).CombinedOutput(); err != nil {
		if os.Getenv("OONA_REQUIRE_NAMESPACES") != "" {
			t.Fatalf("OONA_REQUIRE_NAMESPACES is set, and this user must not mount a file system in a namespace: %v %s", err, out)
		}
		t.Skipf("SKIPPED, NOT TESTED ON A FULL DISK: this user must not mount a file system in a namespace: %v %s", err, out)
	}
	for name, more := range map[string]string{"headroom": "--spool-headroom=1MiB", "no headroom": "--spool-headroom=0"} {
		t.Run(name, func(t *testing.T) { smallDiskFills(t, more) })
	}
}

func smallDiskFills(t *testing.T, more string) {
	mount := t.TempDir()
	brokerPort, listen, admin := addresstest.Port(t), addresstest.Port(t), addresstest.Port(t)
	topics, err := oona.NewTopics("small")
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	broker := startBroker(t, data, brokerPort)
	b := kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, slog.New(slog.DiscardHandler))
	if _, err := b.Apply(t.Context(), topics.Specs(2)); err != nil {
		t.Fatal(err)
	}
	if err := broker.Close(); err != nil { // now the bus is down
		t.Fatal(err)
	}
	p := &ingestProcess{
		t: t, url: fmt.Sprintf("http://127.0.0.1:%d/v1/frames", listen), admin: fmt.Sprintf("http://127.0.0.1:%d", admin),
		wrap: func(command ...string) []string { return onSmallDisk(mount, command...) },
		arguments: []string{
			fmt.Sprintf("--brokers=127.0.0.1:%d", brokerPort), "--prefix=small", "--instance=ingest-1",
			fmt.Sprintf("--listen=127.0.0.1:%d", listen), fmt.Sprintf("--admin-address=127.0.0.1:%d", admin),
			"--spool-directory=" + filepath.Join(mount, "spool"), "--spool-after=100ms", more,
		},
	}
	p.start()
	defer func() { p.kill() }()
	clients := make([]client, 1)
	c := &clients[0]
	c.run = "run-0"
	for range 3 {
		if status, reason := c.fill(t, p.url); status != http.StatusServiceUnavailable || reason != "urn:oona:problem:spool-full" {
			t.Fatalf("with a full disk, the answer is %d, %s\n%s", status, reason, p.output.Bytes())
		}
	}
	full := c.accepted.Load()
	if full < 20 {
		t.Errorf("only %d frames fit on the disk", full)
	}
	other := fmt.Sprintf("/proc/%d/root%s/other", p.cmd.Process.Pid, mount)
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if status, _ := c.fill(t, p.url); status != http.StatusServiceUnavailable || c.accepted.Load() < full+20 {
		t.Errorf("when the disk has space again, %d more frames fit, and then the answer is %d", c.accepted.Load()-full, status)
	}
	broker = startBroker(t, data, brokerPort)
	defer broker.Close()
	b = kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, slog.New(slog.DiscardHandler))
	var missing string
	await(t, func() bool {
		missing = missingFrames(t, b, topics, clients)
		return missing == ""
	}, func() string {
		p.kill()
		return missing + "\n" + p.output.String()
	})
	p.kill()
	if text := p.output.String(); strings.Contains(text, "could not write records") {
		t.Errorf("the log reports a full disk as a failed one:\n%s", text)
	}
}
