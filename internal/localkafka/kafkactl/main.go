// Command kafkactl starts and stops real Kafka brokers on loopback, for tests: three,
// unless -nodes says otherwise.
//
//	kafkactl up      start the brokers that do not run, wait until they are ready, print the addresses
//	kafkactl down    stop the brokers and delete their data
//	kafkactl status  print which brokers run; the exit status is 1 unless all do
//
// On standard output, up prints only the addresses:
//
//	export OONA_KAFKA=$(go run ./internal/localkafka/kafkactl up)
//
// With -secure, the brokers also have listeners with TLS, SASL and client certificates,
// and up prints the flags that connect to them on standard error.
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
	port := flags.Int("port", defaultPort, "`port` of the first broker; those of the other brokers, of the controllers and of the secure listeners follow")
	nodes := flags.Int("nodes", 3, "`number` of brokers")
	secure := flags.Bool("secure", false, "add listeners with TLS and SASL (PLAIN, SCRAM, OAUTHBEARER), with client certificates, and with TLS only")
	flags.Usage = func() {
		fmt.Fprintln(messages, "usage: kafkactl [flags] up|down|status")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return errUsage
	}
	switch flags.Arg(0) {
	case "up":
		return up(ctx, localkafka.Options{Dir: *dir, Cache: cache, Nodes: *nodes, Port: *port, Detach: true}, *secure, out, messages)
	case "down":
		return down(*dir, messages)
	case "status":
		return status(*dir, out)
	}
	flags.Usage()
	return errUsage
}

func up(ctx context.Context, opts localkafka.Options, secure bool, out, messages io.Writer) (err error) {
	began := time.Now()
	secrets := files{opts.Dir}
	if secure {
		if opts.Secure, err = secrets.secure(); err != nil {
			return err
		}
	}
	fmt.Fprintln(messages, "starting Kafka brokers; the first time, Maven downloads Kafka")
	cluster, err := localkafka.Start(ctx, opts)
	if err != nil {
		return err
	}
	fmt.Fprintf(messages, "ready after %s; data and logs are in %s\n", time.Since(began).Round(100*time.Millisecond), opts.Dir)
	if secure {
		secrets.explain(cluster, messages)
	}
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
