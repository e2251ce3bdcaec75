package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/pipeline/ingest"
)

const frame = `{"run_id":"r","layer_id":"l","producer_id":"p","producer_epoch":1790000000000000,"sequence":%d,
"observed_at":1790000001000000,"step":7,"seed_ids":[0],"states":["DORMANT"],"metrics":[{"name":"loss","values":[1]}]}`

// Partitions are added to the topic of frames while ingest runs. When ingest has noticed,
// it answers 503 to every request, and another ingest refuses to start.
func TestPartitionsAdded(t *testing.T) {
	onBrokers(t, partitionsAdded)
}

// onBrokers runs a test on the embedded broker, and on the Kafka that OONA_KAFKA
// names.
func onBrokers(t *testing.T, test func(t *testing.T, brokers []string)) {
	t.Parallel()
	broker, err := embedded.Start(t.Context(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	t.Run("embedded", func(t *testing.T) { test(t, broker.Addrs) })
	t.Run("kafka", func(t *testing.T) {
		if os.Getenv("OONA_KAFKA") == "" && os.Getenv("OONA_REQUIRE_KAFKA") != "1" {
			t.Skip("SKIPPED, NOT TESTED ON REAL KAFKA: OONA_KAFKA is empty; run make kafka-up and set it to the addresses that it prints")
		}
		test(t, strings.Split(os.Getenv("OONA_KAFKA"), ","))
	})
}

func partitionsAdded(t *testing.T, brokers []string) {
	cfg, _, err := parse(t, "--brokers="+strings.Join(brokers, ","), fmt.Sprintf("--prefix=ingest-test-%d", time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	topics, err := oona.NewTopics(cfg.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.New(cfg.Bus, nil).Apply(t.Context(), topics.Specs(2)); err != nil {
		t.Fatal(err)
	}
	b := kafka.New(cfg.Bus, slog.New(slog.DiscardHandler))
	connected, err := b.Publisher(cfg.publisher(topics))
	if err != nil {
		t.Fatal(err)
	}
	publisher := advised{connected}
	defer publisher.Close()
	registry := prometheus.NewRegistry()
	stage, err := ingest.New(cfg.stage(topics), publisher, registry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(stage.Handler())
	defer server.Close()
	if err := b.Check(t.Context(), cfg.checkedTopics(topics)); err != nil {
		t.Fatal(err)
	}
	if status, body := send(t, server.URL, 0); status != http.StatusOK {
		t.Fatalf("answered %d %s before", status, body)
	}

	addPartitions(t, brokers, topics.SeedMetrics, 4)
	await(t, func() bool { return publisher.Pinned() != nil }, func() string { return "ingest does not notice" }) // it looks every ten seconds
	for sequence := range 3 {
		status, body := send(t, server.URL, 1+sequence)
		if status != http.StatusServiceUnavailable || !strings.Contains(body, "urn:oona:problem:partitions") {
			t.Errorf("answered %d %s", status, body)
		}
	}
	if got := counted(t, registry, "oona_ingest_rejected_total", "partitions"); got != 3 {
		t.Errorf("%v requests are counted as refused for it, want 3", got)
	}
	var wrong *bus.TopicsError
	err = b.Check(t.Context(), cfg.checkedTopics(topics))
	if !errors.As(err, &wrong) || len(wrong.Faults) != 2 {
		t.Errorf("a start is answered %v", err)
	}
}

// addPartitions raises the number of partitions.
func addPartitions(t *testing.T, brokers []string, topic string, partitions int32) {
	t.Helper()
	admin, err := sarama.NewClusterAdmin(brokers, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(admin.CreatePartitions(topic, partitions, nil, false), admin.Close()); err != nil {
		t.Fatal(err)
	}
}

func send(t *testing.T, url string, sequence int) (status int, body string) {
	t.Helper()
	response, err := http.Post(url+"/v1/frames", "application/json", strings.NewReader(fmt.Sprintf(frame, sequence)))
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

// counted returns the value of a counter with a label.
func counted(t testing.TB, registry *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("nothing is counted of %s %q", name, label)
	return 0
}
