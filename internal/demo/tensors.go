package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/claimcheck/embedded"
	"github.com/morphogenetic/oona/schemas/avro"
)

// openTensors starts an S3 server over the embedded broker's directory, so that
// tensors survive with the topics. A given Kafka keeps records for longer than
// the demo would keep their tensors: there they stay in their frames.
func (s *stations) openTensors(ctx context.Context, data string, port int) error {
	config := claimcheck.DefaultConfig()
	key, secret := "oona-demo", rand.Text()
	server, err := embedded.Start(ctx, embedded.Options{
		Directory: filepath.Join(data, "tensors"), Bucket: config.Bucket,
		AccessKeyID: key, SecretAccessKey: secret, Port: port, Logger: s.logger,
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, server.Close)
	s.sayMoved("the S3 server", port, server.URL)
	s.tensorsURL = server.URL + "/" + config.Bucket
	secretFile := filepath.Join(data, "tensors-secret")
	if err := os.WriteFile(secretFile, []byte(secret), 0o600); err != nil {
		return fmt.Errorf("keep the embedded S3 server's secret: %w", err)
	}
	config.Kind = claimcheck.KindS3
	config.S3 = claimcheck.S3{Endpoint: server.URL, Region: "us-east-1", PathStyle: true, AccessKeyID: key, SecretFile: secretFile}
	s.tensors, err = claimcheck.Open(config)
	return err
}

// TensorCounts are the tensors of the frames on the seed-metrics topic.
type TensorCounts struct {
	Inline   int64 `json:"inline"`   // in their frames
	Claimed  int64 `json:"claimed"`  // in the store
	Verified int64 `json:"verified"` // of those, read back, with the SHA-256 that was claimed
}

// audit reads the seed-metrics topic, as anyone could, and checks each tensor
// out of the store.
type audit struct {
	stations *stations
	cancel   context.CancelFunc
	log      bus.Reader
	read     sync.WaitGroup

	frames, inline, claimed, verified atomic.Int64
}

func (s *stations) startAudit(ctx context.Context) (*audit, error) {
	log, err := s.bus.Reader(bus.ReaderOptions{From: time.Now()})
	if err != nil {
		return nil, err
	}
	a := &audit{stations: s, log: log}
	ctx, a.cancel = context.WithCancel(ctx)
	messages, err := log.Subscribe(ctx, s.topics.SeedMetrics)
	if err != nil {
		a.cancel()
		return nil, errors.Join(err, log.Close())
	}
	a.read.Go(func() {
		for msg := range messages {
			a.look(ctx, msg)
			msg.Ack()
		}
	})
	return a, nil
}

func (a *audit) look(ctx context.Context, msg *message.Message) {
	if msg.Metadata.Get(oona.HeaderRecord) != "" {
		return // Oona's own
	}
	defer a.frames.Add(1)
	var frame oona.Frame
	if _, err := new(avro.FrameDecoder).Decode(msg.Payload, &frame); err != nil {
		return // the aggregator counts it as dead
	}
	for _, tensor := range frame.Tensors {
		if tensor.Claim == nil {
			a.inline.Add(1)
			continue
		}
		a.claimed.Add(1)
		if a.stations.tensors == nil {
			continue // another's claim, on a given Kafka
		}
		if _, err := a.stations.tensors.Bytes(ctx, *tensor.Claim); err != nil {
			a.stations.logger.Error("a tensor cannot be read back", "run", frame.Run, "layer", frame.Layer, "tensor", tensor.Name, "seed", tensor.Seed, "err", err)
			continue
		}
		a.verified.Add(1)
	}
}

// finish waits until so many frames were looked at, for a while, and ends.
func (a *audit) finish(ctx context.Context, frames int64) TensorCounts {
	deadline := time.Now().Add(settleTimeout)
	for a.frames.Load() < frames && time.Now().Before(deadline) && bus.Pause(ctx, pollInterval) {
	}
	a.cancel()
	a.read.Wait()
	if err := a.log.Close(); err != nil {
		a.stations.logger.Warn("cannot close the reader of tensors", "err", err)
	}
	return TensorCounts{Inline: a.inline.Load(), Claimed: a.claimed.Load(), Verified: a.verified.Load()}
}
