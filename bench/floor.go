package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/schemas/avro"
)

// The floor is the shortest time that a client of the brokers can have here: records of the
// same size, at the same times, on the same partition, with a process that produces them as
// soon as they are due, and one that fetches them. Nothing of Oona is in between.
var (
	floorMiddle      = figure{name: "floor_to_readable_p50_ms", unit: "ms", about: "time from when a record is due until a reader has it, with a plain producer instead of ingest; 10 records each ms"}
	floorTail        = figure{name: "floor_to_readable_p99_ms", unit: "ms", about: "the same, 99th percentile"}
	floorSinglyMid   = figure{name: "floor_singly_to_readable_p50_ms", unit: "ms", about: "the same with a record each 0.1 ms"}
	floorSinglyTail  = figure{name: "floor_singly_to_readable_p99_ms", unit: "ms", about: "the same, 99th percentile"}
	latencyOverFloor = figure{name: "post_over_floor_p99", goal: 1.5, below: true, about: "post_to_readable_p99_ms / floor_to_readable_p99_ms"}
	singlyOverFloor  = figure{name: "post_singly_over_floor_p99", goal: 1.5, below: true, about: "post_singly_to_readable_p99_ms / floor_singly_to_readable_p99_ms"}
)

// floorFlag makes this program the producer of the floor: it reads from stdin when to
// begin, in nanoseconds since 1970 as 8 bytes, big endian.
const floorFlag = "--produce-to"

// measureFloor takes the figures middle and tail for the times of a volley.
func (w *wire) measureFloor(ctx context.Context, v volley, middle, tail figure, into *figures) error {
	return w.onTopics(ctx, func(ctx context.Context, topics oona.Topics) error {
		producer, err := w.begin(ctx, floorFlag, topics.SeedMetrics, "--produce-request="+strconv.Itoa(v.request), "--produce-frames="+strconv.Itoa(v.frames))
		if err != nil {
			return err
		}
		runtime.GC()
		arrived, err := w.fetchFloor(ctx, topics.SeedMetrics, v.frames, func(began time.Time) error {
			_, err := producer.stdin.Write(binary.BigEndian.AppendUint64(nil, uint64(began.UnixNano())))
			return err
		})
		if err = errors.Join(err, producer.end()); err != nil {
			return err
		}
		var delays []time.Duration
		for n := v.warmUp; n < v.frames; n++ {
			delays = append(delays, arrived[n]-v.due(n))
		}
		into.take(w.named(middle), percentile(delays, 50))
		into.take(w.named(tail), percentile(delays, 99))
		return nil
	})
}

// fetchFloor returns when each record was read, from when the producer was told to begin.
func (w *wire) fetchFloor(ctx context.Context, topic string, n int, begin func(time.Time) error) ([]time.Duration, error) {
	client, err := w.plainClient(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	began := time.Now().Add(time.Second) // the reader waits at the end by then
	if err := begin(began); err != nil {
		return nil, err
	}
	arrived := make([]time.Duration, n)
	for seen := 0; seen < n; {
		fetched := client.PollFetches(ctx)
		now := time.Since(began)
		if err := fetched.Err(); err != nil {
			return nil, fmt.Errorf("the reader got %d of %d records: %w", seen, n, err)
		}
		fetched.EachRecord(func(r *kgo.Record) {
			arrived[binary.BigEndian.Uint64(r.Key)] = now
			seen++
		})
	}
	return arrived, nil
}

// plainClient returns a client of the brokers that does not wait for more records.
func (w *wire) plainClient(options ...kgo.Opt) (*kgo.Client, error) {
	options = append(options, kgo.SeedBrokers(w.bus.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0), kgo.FetchMinBytes(1))
	if security := w.bus.Security; security.TLS {
		files, err := tlsfiles.OpenClient(nil, "bus-tls-", security.TLSFiles)
		if err != nil {
			return nil, err
		}
		options = append(options, kgo.DialTLSConfig(files.Config("localhost")))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("connect to the brokers: %w", err)
	}
	return client, nil
}

// produceWhenTold is the producer, in the other process.
func (w *wire) produceWhenTold(ctx context.Context, topic string, v volley) (err error) {
	client, err := w.plainClient()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil {
		return err
	}
	if _, err := fmt.Println("ready"); err != nil {
		return err
	}
	var start [8]byte
	if _, err := io.ReadFull(os.Stdin, start[:]); err != nil {
		return nil // this process is to end
	}
	began := time.Unix(0, int64(binary.BigEndian.Uint64(start[:])))
	f := smallFrame()
	value := avro.AppendFrame(nil, &f)
	failed := make(chan error, v.frames)
	for n := range v.frames {
		if wait := time.Until(began.Add(v.due(n))); wait > 0 {
			time.Sleep(wait)
		}
		record := &kgo.Record{Topic: topic, Partition: 0, Key: binary.BigEndian.AppendUint64(nil, uint64(n)), Value: value}
		client.Produce(ctx, record, func(_ *kgo.Record, err error) { failed <- err })
	}
	for range v.frames {
		err = errors.Join(err, <-failed)
	}
	return err
}
