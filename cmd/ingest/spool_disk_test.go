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

// smallDisk is a command that mounts a file system of 16 MiB at $1, and fills half of it, in a
// mount namespace of its own, and then runs the rest of its arguments.
const smallDisk = `set -e
mount -t tmpfs -o size=16m oona "$1"
head -c 8388608 /dev/zero > "$1/other"
shift
exec "$@"`

func onSmallDisk(dir string, command ...string) []string {
	return append([]string{"unshare", "--user", "--map-root-user", "--mount", "sh", "-c", smallDisk, "sh", dir}, command...)
}

// fill sends frames of some 100 KB until one is not accepted with 202. It returns the answer.
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
			_ = json.Unmarshal(text, &problem) // an answer of another form has no type
			return answer.StatusCode, problem.Type
		}
		c.accepted.Add(1)
	}
	t.Fatal("the disk does not fill")
	return 0, ""
}

// A disk that is full refuses frames with a reason, and accepts them again when it has room.
// Every frame that was answered with 202 is on the bus in the end.
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
			t.Fatalf("the answer of a full disk is %d, %s\n%s", status, reason, p.output.Bytes())
		}
	}
	full := c.accepted.Load()
	if full < 20 {
		t.Errorf("%d frames fit", full)
	}
	other := fmt.Sprintf("/proc/%d/root%s/other", p.cmd.Process.Pid, mount)
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if status, _ := c.fill(t, p.url); status != http.StatusServiceUnavailable || c.accepted.Load() < full+20 {
		t.Errorf("%d frames fit when there is room again, the answer of a full disk is %d", c.accepted.Load()-full, status)
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
		t.Errorf("a full disk is taken for a broken one:\n%s", text)
	}
}
