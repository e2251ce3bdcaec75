// Package embedded is a broker in the process that speaks Kafka's protocol, for the demo
// and for tests.
//
// It is kfake, a fake broker for testing. It has no replicas, and it may accept what
// Kafka would refuse. In production, use Kafka.
//
// In addition to kfake, it has append times in topics with
// message.timestamp.type=LogAppendTime, and it locks its data directory.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Options are the options of a broker.
type Options struct {
	DataDir string       // for topics, records and commits; "": they are in memory, and lost at Close
	Port    int          // preferred port on 127.0.0.1; another one is used if it is taken or 0
	Logger  *slog.Logger // nil: no log
	// Control sees each request before the broker does, like kfake's Control, so that a
	// test can make the broker fail. nil: no control.
	Control func(c *kfake.Cluster, request kmsg.Request) (kmsg.Response, error, bool)
}

// Broker runs until Close.
type Broker struct {
	Addrs []string // host:port

	cluster *kfake.Cluster
	lock    *os.File // nil without a data directory
	closing sync.Once
	err     error // of Close
}

// memorySegment is the size of a segment that is kept in memory. kfake copies a full
// segment to one of twice the size, and answers no request during that time. With its default of
// 100 MiB this takes tens of milliseconds.
const memorySegment = 4 << 20

// closeTimeout limits Close.
const closeTimeout = 10 * time.Second

// Start returns a running broker. The error wraps ErrDirectoryTaken if another process
// uses the data directory.
func Start(ctx context.Context, opts Options) (*Broker, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	b := new(Broker)
	logger := opts.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	options := []kfake.Opt{kfake.NumBrokers(1), kfake.WithLogger(kfakeLogger{logger})}
	if opts.DataDir != "" {
		lock, err := lockDirectory(opts.DataDir)
		if err != nil {
			return nil, err
		}
		b.lock = lock
		options = append(options, kfake.DataDir(filepath.Join(opts.DataDir, "kafka")))
	} else {
		options = append(options, kfake.BrokerConfigs(map[string]string{"log.segment.bytes": strconv.Itoa(memorySegment)}))
	}
	listener, err := listen(ctx, opts.Port)
	if err != nil {
		return nil, errors.Join(err, b.unlock())
	}
	options = append(options, kfake.ListenFn(func(string, string) (net.Listener, error) { return listener, nil }))
	if b.cluster, err = kfake.NewCluster(options...); err != nil {
		return nil, errors.Join(fmt.Errorf("start the embedded broker: %w", err), listener.Close(), b.unlock())
	}
	if opts.Control != nil {
		b.cluster.Control(func(r kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			return opts.Control(b.cluster, r)
		})
	}
	b.cluster.ControlKey(kmsg.Produce.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		b.stampAll(r.(*kmsg.ProduceRequest), time.Now())
		return nil, nil, false // kfake handles it
	})
	b.Addrs = b.cluster.ListenAddrs()
	return b, nil
}

// Close stops the broker and unlocks its directory. Further calls return the result of
// the first.
func (b *Broker) Close() error {
	b.closing.Do(func() {
		closed := make(chan struct{})
		go func() { b.cluster.Close(); close(closed) }()
		timeout := time.NewTimer(closeTimeout)
		defer timeout.Stop()
		select {
		case <-closed:
			b.err = b.unlock()
		case <-timeout.C: // the directory stays locked, as the broker may still write
			b.err = fmt.Errorf("the embedded broker did not stop within %s", closeTimeout)
		}
	})
	return b.err
}

// listen opens the preferred port on loopback, or any other port if it is taken.
func listen(ctx context.Context, port int) (net.Listener, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		listener, err = config.Listen(ctx, "tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, fmt.Errorf("find a port for the embedded broker: %w", err)
	}
	return listener, nil
}

// ErrDirectoryTaken is returned if another broker uses the data directory.
var ErrDirectoryTaken = errors.New("another process uses the data directory")

// lockDirectory creates a directory and locks it. The lock ends when the file is closed
// or the process ends.
func lockDirectory(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the broker's data directory: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the broker's data directory: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("%w %s; stop it, or name another directory", ErrDirectoryTaken, dir), file.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the broker's data directory %s: %w", dir, err), file.Close())
	}
	return file, nil
}

func (b *Broker) unlock() error {
	if b.lock == nil {
		return nil
	}
	if err := b.lock.Close(); err != nil {
		return fmt.Errorf("free the broker's data directory: %w", err)
	}
	return nil
}

// kfakeLogger passes on the errors of kfake.
type kfakeLogger struct{ logger *slog.Logger }

func (l kfakeLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.logger.Error("embedded broker: " + fmt.Sprintf(format, args...))
	case kfake.LogLevelWarn:
		l.logger.Debug("embedded broker: " + fmt.Sprintf(format, args...))
	}
}
