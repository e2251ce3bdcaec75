package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/forward"
	"github.com/morphogenetic/oona/pipeline/ingest"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/entry"
)

var (
	spoolAppend = figure{name: "spool_append_mb", unit: "MB/s",
		about: "requests of ten frames into ingest's spool, from 64 clients at the same time, each synced before its answer"}
	spoolBatch = figure{name: "spool_batch_kb", unit: "kB",
		about: "of these, what is written and synced together"}
	syncedSpeed = figure{name: "disk_synced_mb", unit: "MB/s",
		about: "the disk: the same bytes in batches of that size, each written and synced"}
	spoolOverDisk = figure{name: "spool_append_over_disk", goal: 0.5,
		about: "the first over that"}
	spoolDrainSpeed = figure{name: "spool_drain_kreadings", unit: "k readings/s", goal: 200,
		about: "frames of a full spool sent by ingest while it takes post_to_readable's traffic"}
	spoolLiveTail = figure{name: "spool_live_p99_ms", unit: "ms",
		about: "post_to_readable_p99 of that traffic beside the drain"}
	spoolLiveRatio = figure{name: "spool_live_p99_over_alone", goal: 2, below: true,
		about: "the same over that without a drain, before it in the same round"}
)

const (
	spoolClients = 64
	spoolRequest = 10 // frames in a request
	spoolAppends = 20_000
)

// spooledRun is the run of the frames in the spool.
const spooledRun = "spooled"

// spoolBody returns a record of a spool: a request of small frames.
func spoolBody(topic string, first int) []byte {
	f := smallFrame()
	f.Run = spooledRun
	e := entry.Entry{Spooled: oona.MicrosOf(time.Now()), Topic: topic}
	for i := range spoolRequest {
		f.Sequence = int64(first + i)
		m := bus.NewMessage(avro.AppendFrame(nil, &f), bus.Target{Key: oona.Key(f.Run, f.Layer)})
		m.Metadata = message.Metadata{oona.HeaderPath: "bench"}
		e.Messages = append(e.Messages, m)
	}
	return entry.Append(nil, &e)
}

// openSpool opens a spool as ingest does.
func openSpool(dir string, logger *slog.Logger) (*spool.Queues, error) {
	cfg := ingest.DefaultConfig()
	cfg.Spool.Directory = dir
	return cfg.OpenSpool(logger)
}

// fillSpool appends requests from several clients at the same time. It returns the number of bytes, and
// the mean number that was written together.
func fillSpool(ctx context.Context, s *spool.Queues, topic string, requests int) (total, batch int64, err error) {
	queue, err := s.Queue(topic)
	if err != nil {
		return 0, 0, err
	}
	body := spoolBody(topic, 0)
	keys := forward.Keys(body)
	var next atomic.Int64
	clients, ctx := errgroup.WithContext(ctx)
	for range spoolClients {
		clients.Go(func() error {
			for next.Add(1) <= int64(requests) {
				if err := queue.Append(ctx, keys, body); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := clients.Wait(); err != nil {
		return 0, 0, fmt.Errorf("fill a spool: %w", err)
	}
	total = int64(requests) * int64(len(body))
	return total, total / max(1, s.Stats().Syncs), nil
}

// measureSpool measures appending to the spool, and the disk with the same batches: with a plain loop
// and, if fio is installed, with fio.
func (b *bench) measureSpool(ctx context.Context, requests int) (err error) {
	dir, err := os.MkdirTemp("", "oona-bench-spool-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := openSpool(filepath.Join(dir, "spool"), b.logger)
	if err != nil {
		return err
	}
	began := time.Now()
	total, batch, err := fillSpool(ctx, s, "bench", requests)
	took := time.Since(began)
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	disk, err := writeBatches(filepath.Join(dir, "plain"), total, batch)
	if err != nil {
		return fmt.Errorf("write to the disk: %w", err)
	}
	b.all.take(spoolAppend, float64(total)/1e6/took.Seconds())
	b.all.take(spoolBatch, float64(batch)/1e3)
	b.all.take(syncedSpeed, float64(total)/1e6/disk.Seconds())
	b.all.takeRatio(spoolOverDisk, spoolAppend, syncedSpeed)
	if b.fio == "" {
		return nil
	}
	return measureFio(ctx, b.fio, dir, total, batch, b.all)
}

// plainFile is the size of the files of writeBatches. It is that of the files in a spool of the default
// size.
const plainFile = 16 << 20

// writeBatches writes batches, each with one write and one fdatasync, and returns how long this takes.
func writeBatches(path string, total, batch int64) (took time.Duration, err error) {
	block := make([]byte, batch)
	for i := range block {
		block[i] = byte(i * 7)
	}
	began := time.Now()
	for n, left := 0, total; left > 0; n++ {
		file, err := os.Create(fmt.Sprintf("%s-%d", path, n))
		if err != nil {
			return 0, err
		}
		for size := int64(0); err == nil && left > 0 && size < plainFile; size += batch {
			if _, err = file.Write(block[:min(left, batch)]); err == nil {
				err = unix.Fdatasync(int(file.Fd()))
			}
			left -= batch
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// measureSpoolDrain measures the latency of a volley alone, and while ingest sends its spool.
func (w *wire) measureSpoolDrain(ctx context.Context, v volley, requests int, into *figures) error {
	alone, _, err := w.volleyBeside(ctx, v, 0)
	if err != nil {
		return err
	}
	beside, drained, err := w.volleyBeside(ctx, v, requests)
	if err != nil {
		return err
	}
	into.take(w.named(spoolDrainSpeed), drained/1e3)
	into.take(w.named(spoolLiveTail), beside)
	into.take(w.named(spoolLiveRatio), beside/alone)
	return nil
}

// volleyBeside sends a volley while ingest sends a spool with the given number of requests. It returns
// the 99th percentile of the volley's latency in milliseconds, and how many readings per second come
// from the spool.
func (w *wire) volleyBeside(ctx context.Context, v volley, requests int) (tail, drained float64, err error) {
	err = w.onTopics(ctx, func(ctx context.Context, topics oona.Topics) (err error) {
		dir, err := os.MkdirTemp("", "oona-bench-spool-")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		s, err := openSpool(dir, w.logger)
		if err != nil {
			return err
		}
		if requests > 0 {
			_, _, err = fillSpool(ctx, s, topics.SeedMetrics, requests)
		}
		if err = errors.Join(err, s.Close()); err != nil {
			return err
		}
		times, err := w.flyThroughIngest(ctx, v, topics.SeedMetrics, "--ingest-spool", dir)
		if err != nil {
			return err
		}
		var delays []time.Duration
		for n := v.warmUp; n < v.frames; n++ {
			delays = append(delays, times.arrived[n]-v.due(n))
		}
		if requests > 0 && times.others == requests*spoolRequest {
			return fmt.Errorf("the spool was empty before the volley of %d frames ended: it is too small to measure beside", v.frames)
		}
		last := times.arrived[v.frames-1] - v.due(v.warmUp)
		tail, drained = percentile(delays, 99), float64(times.others*latencySeeds)/last.Seconds()
		return nil
	})
	return tail, drained, err
}
