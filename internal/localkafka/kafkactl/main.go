// Command kafkactl starts and stops three real Kafka brokers on loopback, for
// tests.
//
//	kafkactl up      start the brokers that do not run, wait until they are ready, print the addresses
//	kafkactl down    stop the brokers and delete their data
//	kafkactl status  print which brokers run; the exit status is 1 unless all do
//
// On standard output, up prints only the addresses:
//
//	export OONA_KAFKA=$(go run ./internal/localkafka/kafkactl up)
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/morphogenetic/oona/internal/localkafka"
)

// defaultPort is the port of the first broker. It is not Kafka's default, so that this
// cluster is not confused with another Kafka.
const defaultPort = 19092

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kafkactl:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("give up, down or status")

func run(ctx context.Context, args []string, out, messages io.Writer) error {
	cache, err := localkafka.DefaultCache()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("kafkactl", flag.ContinueOnError)
	flags.SetOutput(messages)
	dir := flags.String("dir", filepath.Join(cache, "cluster"), "`directory` of configuration, logs and data; down deletes it")
	port := flags.Int("port", defaultPort, "`port` of the first broker; five more follow, two of brokers and three of controllers")
	flags.Usage = func() {
		fmt.Fprintln(messages, "usage: kafkactl [flags] up|down|status")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return errUsage
	}
	switch flags.Arg(0) {
	case "up":
		return up(ctx, localkafka.Options{Dir: *dir, Cache: cache, Port: *port, Detach: true}, out, messages)
	case "down":
		return down(*dir, messages)
	case "status":
		return status(*dir, out)
	}
	flags.Usage()
	return errUsage
}

func up(ctx context.Context, opts localkafka.Options, out, messages io.Writer) error {
	began := time.Now()
	fmt.Fprintln(messages, "starting three Kafka brokers; the first time, Maven downloads Kafka")
	cluster, err := localkafka.Start(ctx, opts)
	if err != nil {
		return err
	}
	fmt.Fprintf(messages, "ready after %s; data and logs are in %s\n", time.Since(began).Round(100*time.Millisecond), opts.Dir)
	fmt.Fprintln(out, cluster)
	return nil
}

func down(dir string, messages io.Writer) error {
	cluster, err := localkafka.Open(dir)
	if errors.Is(err, localkafka.ErrNoCluster) {
		fmt.Fprintln(messages, "nothing to stop:", err)
		return nil
	}
	if err != nil {
		return err
	}
	if err := cluster.Stop(); err != nil {
		return err
	}
	if err := cluster.Remove(); err != nil {
		return err
	}
	fmt.Fprintln(messages, "stopped")
	return nil
}

func status(dir string, out io.Writer) error {
	cluster, err := localkafka.Open(dir)
	if err != nil {
		return err
	}
	running := cluster.Running()
	fmt.Fprintf(out, "%d of %d nodes run: %v; brokers %s\n", len(running), len(cluster.Addrs()), running, cluster)
	if len(running) < len(cluster.Addrs()) {
		return errors.New("not all nodes run; start them with: kafkactl up")
	}
	return nil
}
