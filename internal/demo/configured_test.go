package demo

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// If partitions begin with a configuration, the counts agree, and the windows have
// the length that the log says.
func TestConfiguredTopics(t *testing.T) {
	t.Parallel()
	brokers(t, func(t *testing.T, addresses []string) { inTime(t, addresses, configuredTopics) })
}

func configuredTopics(t *testing.T, ctx context.Context, cfg Config) (late bool) {
	t.Helper()
	topics, err := oona.NewTopics(cfg.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	at := kafka.Config{Brokers: cfg.Kafka, ClientID: "test"}
	if _, err := kafka.New(at, nil).Apply(ctx, topics.Specs(cfg.Partitions)); err != nil {
		t.Fatal(err)
	}
	first := windows.Configuration{Config: cfg.windows()}
	first.Config.Generation = 5
	first.Config.Length = time.Hour
	publisher, err := kafka.New(at, nil).Publisher(bus.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	for p := range cfg.Partitions {
		msg := message.NewMessage("", avro.AppendConfiguration(nil, first.Record()))
		msg.Metadata.Set(oona.HeaderRecord, oona.ConfigurationRecord)
		msg.SetContext(bus.WithTarget(msg.Context(), bus.Target{Partition: p, Directed: true}))
		if err := publisher.Publish(context.Background(), topics.SeedMetrics, msg); err != nil {
			t.Fatal(err)
		}
	}
	report, err := Run(ctx, cfg, watch.Screen{Out: io.Discard}, discard())
	if err != nil {
		t.Fatal(err)
	}
	if report.Late > 0 {
		return true
	}
	if !report.Agree || report.Sent == 0 || report.Folded != report.Sent || report.Records != report.Sent {
		t.Errorf("report is %+v", report)
	}

	reader, err := kafka.New(at, discard()).Reader(bus.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	messages, err := reader.Subscribe(ctx, topics.LayerHealth)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case msg := <-messages:
		msg.Ack()
		var r oona.Rollup
		if _, err := avro.DecodeRollup(msg.Payload, &r); err != nil || r.Generation != 5 || r.End-r.Start != 3_600_000_000 {
			t.Errorf("rollup %+v, %v; want windows of the log's configuration", r, err)
		}
	case <-ctx.Done():
		t.Error("no rollup came")
	}
	return false
}
