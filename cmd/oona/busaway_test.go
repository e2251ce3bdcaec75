package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/internal/address/addresstest"
)

// If a broker stops and starts again at its address, the real ingest and exporter stay ready. A line
// of /readyz and a gauge show that it was down.
func TestBusGoesAwayUnderWorkers(t *testing.T) {
	onlyWithoutRaceDetector(t)
	t.Parallel()
	s := &secured{t: t, bin: t.TempDir()}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", s.bin, "../ingest", "../exporter").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	options := embedded.Options{DataDir: t.TempDir(), Port: addresstest.Port(t), Logger: slog.New(slog.DiscardHandler)}
	start := func() *embedded.Broker {
		broker, err := embedded.Start(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = broker.Close() })
		return broker
	}
	broker := start()
	brokers := []string{"--brokers=" + broker.Addrs[0]}
	if status, _, messages := run(t, append([]string{"topics", "apply", "--partitions=1"}, brokers...)...); status != 0 {
		t.Fatal(messages)
	}
	admin := append([]string{"--admin-address=127.0.0.1:0"}, brokers...)
	addresses := map[string]string{
		"ingest":   s.start("ingest", append([]string{"--listen=127.0.0.1:0"}, admin...), adminListens, acceptFrames)[adminListens],
		"exporter": s.start("exporter", admin, adminListens)[adminListens],
	}
	for name, address := range addresses {
		s.shows(name, address, true, false)
	}
	if err := broker.Close(); err != nil {
		t.Fatal(err)
	}
	for name, address := range addresses {
		s.shows(name, address, false, true)
	}
	if back := start(); back.Addrs[0] != broker.Addrs[0] {
		t.Fatalf("the broker is back at %s, and was at %s", back.Addrs[0], broker.Addrs[0])
	}
	for name, address := range addresses {
		s.shows(name, address, true, true)
	}
}

// shows waits until a worker shows that the bus is up, or that it is down. A worker that
// is ready must stay so.
func (s *secured) shows(name, address string, up, ready bool) {
	s.t.Helper()
	gauge := map[bool]string{true: "} 1\n", false: "} 0\n"}[up]
	var body string
	for end := time.Now().Add(hopeless); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		status, text := page(s.t, "http://"+address+"/readyz")
		if ready = ready || status == http.StatusOK; ready && status != http.StatusOK {
			s.t.Fatalf("%s: /readyz is %d: %s", name, status, text)
		}
		_, metrics := page(s.t, "http://"+address+"/metrics")
		_, value, _ := strings.Cut(metrics, "\noona_bus_up{")
		body = text
		if ready && strings.Contains(text, "\nbus: down since ") == !up && strings.Contains(firstLine(value), gauge) {
			return
		}
	}
	s.t.Fatalf("%s does not show that the bus is up: %v; /readyz says %s", name, up, body)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line + "\n"
}

func page(t *testing.T, url string) (status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hopeless)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}
