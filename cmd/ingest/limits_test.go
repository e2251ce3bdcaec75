package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/address/addresstest"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// sendOld sends a strict request with a frame that is 25 hours old.
func sendOld(t *testing.T, p *ingestProcess) (status int, applied, body string) {
	t.Helper()
	f := &oona.Frame{
		Run: "r", Layer: "l", Producer: "p", ObservedAt: oona.MicrosOf(time.Now().Add(-25 * time.Hour)),
		Seeds: []oona.SeedID{0}, States: []oona.State{oona.Training},
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url, bytes.NewReader(avro.AppendFrame(nil, f)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/avro")
	request.Header.Set("Prefer", "handling=strict")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header.Get("Preference-Applied"), string(text)
}

// Ingest starts without a settings topic, judges nothing, and says so once. When there are
// limits in the topic, it learns them.
func TestLimitsOfTheSettingsTopic(t *testing.T) {
	t.Parallel()
	brokerPort, listen, admin := addresstest.Port(t), addresstest.Port(t), addresstest.Port(t)
	topics, err := oona.NewTopics("limited")
	if err != nil {
		t.Fatal(err)
	}
	broker := startBroker(t, t.TempDir(), brokerPort)
	defer broker.Close()
	b := kafka.New(kafka.Config{Brokers: broker.Addrs, ClientID: "test"}, slog.New(slog.DiscardHandler))
	if _, err := b.Apply(t.Context(), topics.Specs(2)); err != nil {
		t.Fatal(err)
	}
	p := &ingestProcess{
		t: t, url: fmt.Sprintf("http://127.0.0.1:%d/v1/frames", listen), admin: fmt.Sprintf("http://127.0.0.1:%d", admin),
		arguments: []string{
			fmt.Sprintf("--brokers=127.0.0.1:%d", brokerPort), "--prefix=limited", "--instance=ingest-1",
			fmt.Sprintf("--listen=127.0.0.1:%d", listen), fmt.Sprintf("--admin-address=127.0.0.1:%d", admin),
		},
	}
	p.start()
	if status, applied, body := sendOld(t, p); status != http.StatusOK || applied != "" || body != "{\"accepted\":1}\n" {
		t.Errorf("without limits the answer is %d %s, %q", status, body, applied)
	}
	if _, err := b.Apply(t.Context(), []oona.TopicSpec{topics.SettingsSpec()}); err != nil {
		t.Fatal(err)
	}
	cfg := windows.DefaultConfig()
	cfg.Generation = 1
	for partition := range int32(2) {
		if err := settings.Write(t.Context(), b, topics, settings.WindowsEntry(partition, windows.Configuration{Config: cfg}.Record())); err != nil {
			t.Fatal(err)
		}
	}
	var answer string
	await(t, func() bool {
		status, applied, body := sendOld(t, p)
		answer = fmt.Sprintf("%d %s, %q", status, body, applied)
		return status == http.StatusBadRequest && applied == "handling=strict" && strings.Contains(body, "urn:oona:problem:stale")
	}, func() string { return "with limits the answer is " + answer })
	p.kill()
	if n := strings.Count(p.output.String(), "the limits of the windows cannot be read"); n != 1 && n != 2 { // 2: between the two writes
		t.Errorf("it was said %d times that they are not known\n%s", n, p.output.String())
	}
}
