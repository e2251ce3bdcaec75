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

// openTensors starts an S3 server in the embedded broker's directory, so that
// tensors are kept as long as the topics. With --kafka there is no S3 server: Kafka
// would keep records for longer than their tensors, so tensors stay in their frames.
func (s *services) openTensors(ctx context.Context, data string, port int) error {
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
	Verified int64 `json:"verified"` // claimed, and read back with the SHA-256 of the claim
}

// audit reads the seed-metrics topic with an ordinary reader, and verifies each
// tensor that is in the store.
type audit struct {
	services *services
	cancel   context.CancelFunc
	log      bus.Reader
	read     sync.WaitGroup

	frames, inline, claimed, verified atomic.Int64
}

func (s *services) startAudit(ctx context.Context) (*audit, error) {
	log, err := s.bus.Reader(bus.ReaderOptions{From: time.Now()})
	if err != nil {
		return nil, err
	}
	a := &audit{services: s, log: log}
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
		return // a record of Oona itself
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
		if a.services.tensors == nil {
			continue // a claim of another client, with --kafka
		}
		if _, err := a.services.tensors.Bytes(ctx, *tensor.Claim); err != nil {
			a.services.logger.Error("a tensor cannot be read back", "run", frame.Run, "layer", frame.Layer, "tensor", tensor.Name, "seed", tensor.Seed, "err", err)
			continue
		}
		a.verified.Add(1)
	}
}

// finish waits until the audit has read that many frames, or the demo must not wait any longer. It
// then stops the audit and returns its counts.
func (a *audit) finish(ctx context.Context, most *limit, frames int64) TensorCounts {
	for a.frames.Load() < frames && !most.reached() && bus.Pause(ctx, pollInterval) {
	}
	a.cancel()
	a.read.Wait()
	if err := a.log.Close(); err != nil {
		a.services.logger.Warn("cannot close the reader of tensors", "err", err)
	}
	return TensorCounts{Inline: a.inline.Load(), Claimed: a.claimed.Load(), Verified: a.verified.Load()}
}
