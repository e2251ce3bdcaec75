package embedded

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file uses franz-go, a client that is not the workers' own.

func start(t *testing.T, opts Options) *Broker {
	t.Helper()
	b, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func connect(t *testing.T, b *Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(b.Addrs...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func makeTopic(t *testing.T, client *kgo.Client, name, timestampType string) {
	t.Helper()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
	config := kmsg.NewCreateTopicsRequestTopicConfig()
	config.Name, config.Value = "message.timestamp.type", &timestampType
	topic.Configs = append(topic.Configs, config)
	request := kmsg.NewPtrCreateTopicsRequest()
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(t.Context(), client)
	if err != nil || response.Topics[0].ErrorCode != 0 {
		t.Fatal(err, response)
	}
}

func read(t *testing.T, b *Broker, topic string, count int) (records []*kgo.Record) {
	t.Helper()
	client := connect(t, b, kgo.ConsumeTopics(topic))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for len(records) < count {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

// Batches are stamped whatever their compression and whichever way the client
// names the topic, and their checksums hold: clients check them.
func TestAppendTimes(t *testing.T) {
	b := start(t, Options{})
	old := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	for name, codec := range map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()} {
		t.Run(name, func(t *testing.T) {
			client := connect(t, b, kgo.ProducerBatchCompression(codec))
			makeTopic(t, client, "append-"+name, "LogAppendTime")
			makeTopic(t, client, "create-"+name, "CreateTime")
			before := time.Now().Truncate(time.Millisecond)
			for _, topic := range []string{"append-" + name, "create-" + name} {
				if err := client.ProduceSync(t.Context(),
					&kgo.Record{Topic: topic, Timestamp: old, Value: make([]byte, 1000)},
					&kgo.Record{Topic: topic, Timestamp: old.Add(5 * time.Millisecond), Value: make([]byte, 1000)},
				).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			for i, r := range read(t, b, "append-"+name, 2) {
				if r.Timestamp.Before(before) || r.Timestamp.After(time.Now().Add(5*time.Millisecond)) {
					t.Errorf("record %d was appended at %s", i, r.Timestamp)
				}
			}
			for i, r := range read(t, b, "create-"+name, 2) {
				if want := old.Add(time.Duration(5*i) * time.Millisecond); !r.Timestamp.Equal(want) {
					t.Errorf("record %d has %s, its producer gave %s", i, r.Timestamp, want)
				}
			}
		})
	}
}

// What is not a batch is left for kfake to refuse.
func TestStampLeavesOtherBytesAlone(t *testing.T) {
	for name, batch := range map[string][]byte{
		"nothing":       nil,
		"short":         make([]byte, batchHeader-1),
		"wrong length":  append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9}, make([]byte, 100)...),
		"length beyond": append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, make([]byte, 100)...),
	} {
		before := string(batch)
		stamp(batch, 1)
		if string(batch) != before {
			t.Errorf("%s: was changed", name)
		}
	}
}

// Topics with their settings, records with their times, and commits survive.
func TestDataDirectoryIsKept(t *testing.T) {
	opts := Options{DataDir: filepath.Join(t.TempDir(), "made", "on demand")}
	b := start(t, opts)
	client := connect(t, b)
	makeTopic(t, client, "t", "LogAppendTime")
	old := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Timestamp: old, Value: []byte("before")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	first := read(t, b, "t", 1)[0].Timestamp
	client.Close()
	if err := errors.Join(b.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}

	b = start(t, opts)
	if err := connect(t, b).ProduceSync(t.Context(), &kgo.Record{Topic: "t", Timestamp: old, Value: []byte("after")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	records := read(t, b, "t", 2)
	if string(records[0].Value) != "before" || string(records[1].Value) != "after" || !records[0].Timestamp.Equal(first) || records[1].Timestamp.Before(first) {
		t.Errorf("%s at %s, %s at %s; the first was at %s", records[0].Value, records[0].Timestamp, records[1].Value, records[1].Timestamp, first)
	}
}

func TestDataDirectoryHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	b := start(t, Options{DataDir: dir})
	_, err := Start(t.Context(), Options{DataDir: dir})
	if !errors.Is(err, ErrDirectoryTaken) || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v", err)
	}
	// Nor may another process have it.
	if os.Getenv("OONA_EMBEDDED_LOCK") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestLockFromAnotherProcess$")
		cmd.Env = append(os.Environ(), "OONA_EMBEDDED_LOCK="+dir)
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, output)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, Options{DataDir: dir})
}

// TestLockFromAnotherProcess is run by TestDataDirectoryHasOneOwner.
func TestLockFromAnotherProcess(t *testing.T) {
	dir := os.Getenv("OONA_EMBEDDED_LOCK")
	if dir == "" {
		t.Skip("is run by TestDataDirectoryHasOneOwner")
	}
	if _, err := Start(t.Context(), Options{DataDir: dir}); !errors.Is(err, ErrDirectoryTaken) {
		t.Errorf("%v", err)
	}
}

func TestUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{DataDir: filepath.Join(file, "below")}); err == nil || errors.Is(err, ErrDirectoryTaken) {
		t.Errorf("%v", err)
	}
}

// The preferred port is used when it is free, and another when it is not.
func TestPort(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := listener.Addr().(*net.TCPAddr)
	b := start(t, Options{Port: taken.Port})
	if len(b.Addrs) != 1 || b.Addrs[0] == taken.String() {
		t.Errorf("listens at %v while %s is taken", b.Addrs, taken)
	}
	if err := connect(t, b).Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if b := start(t, Options{Port: taken.Port}); b.Addrs[0] != taken.String() {
		t.Errorf("listens at %v although %s is free", b.Addrs, taken)
	}
}

func TestStartAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if _, err := Start(ctx, Options{DataDir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	start(t, Options{DataDir: dir}) // it is not left locked
}
