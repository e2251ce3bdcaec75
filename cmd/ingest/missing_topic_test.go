package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/pipeline/ingest"
)

// Topics are deleted while ingest runs, and made again. In the meantime the answers name the topic that
// is missing, and what is sent to other topics is accepted.
func TestTopicsDeleted(t *testing.T) {
	onBrokers(t, topicsDeleted)
}

func topicsDeleted(t *testing.T, brokers []string) {
	cfg, _, err := parse(t, "--brokers="+strings.Join(brokers, ","), fmt.Sprintf("--prefix=ingest-test-%d", time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	topics, err := oona.NewTopics(cfg.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	b := kafka.New(cfg.Bus, slog.New(slog.DiscardHandler))
	specs := append(topics.Specs(2), topics.EventSpecs(2)...)
	if _, err := b.Apply(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	connected, err := b.Publisher(cfg.publisher(topics))
	if err != nil {
		t.Fatal(err)
	}
	publisher := advised{connected}
	defer publisher.Close()
	stage, err := ingest.New(cfg.stage(topics), publisher, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(stage.Handler())
	defer server.Close()

	sequence := 0
	post := func(kind, body string) (status int, answer string) {
		t.Helper()
		sequence++
		response, err := http.Post(server.URL+"/v1/"+kind, "application/json", strings.NewReader(fmt.Sprintf(body, sequence)))
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
	frame := func() (int, string) { return post("frames", frame) }
	event := func(to string) (int, string) {
		return post("events", `{"run_id":"r","layer_id":"l","seed_id":0,"sequence":%d,"at":1790000001000000,"step":7,"from_state":"TRAINING","to_state":"`+to+`"}`)
	}
	culled := func() (int, string) { return event("CULLED") }
	grafted := func() (int, string) { return event("GRAFTING") }
	accepted := func(what string, send func() (int, string)) {
		t.Helper()
		if status, answer := send(); status != http.StatusOK {
			t.Fatalf("%s: answered %d %s", what, status, answer)
		}
	}
	until := func(what string, send func() (int, string), want int, says ...string) {
		t.Helper()
		var status int
		var answer string
		await(t, func() bool {
			status, answer = send()
			for _, word := range says {
				if !strings.Contains(answer, word) {
					return false
				}
			}
			return status == want
		}, func() string { return fmt.Sprintf("%s: answered %d %s", what, status, answer) })
	}

	accepted("a frame before", frame)
	accepted("an event before", culled)
	deleteTopic(t, brokers, topics.Culled)
	until("an event without its topic", culled, http.StatusServiceUnavailable, "urn:oona:problem:no-topic", topics.Culled)
	accepted("an event for another topic", grafted)
	accepted("a frame without a topic of events", frame)
	deleteTopic(t, brokers, topics.SeedMetrics)
	until("a frame without its topic", frame, http.StatusServiceUnavailable, "urn:oona:problem:publish", topics.SeedMetrics, "oona topics apply")
	accepted("an event without the topic of frames", grafted)
	if _, err := b.Apply(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	until("a frame after", frame, http.StatusOK)
	until("an event after", culled, http.StatusOK)
}

func deleteTopic(t *testing.T, brokers []string, topic string) {
	t.Helper()
	admin, err := sarama.NewClusterAdmin(brokers, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(admin.DeleteTopic(topic), admin.Close()); err != nil {
		t.Fatal(err)
	}
}
