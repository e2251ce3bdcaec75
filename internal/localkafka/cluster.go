// Package localkafka runs three real Apache Kafka brokers on loopback, for
// tests: what matters of the embedded broker's behaviour is proven on them.
//
// Kafka comes from Maven Central into a cache (43 MiB, once); the three Java
// processes take 350 MB each, 730 MB under load. The command kafkactl keeps one
// such cluster from one call to the next.
package localkafka

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// size is the number of nodes: the fewest that go on without one.
const size = 3

// Options say where a cluster is.
type Options struct {
	// Dir holds configuration, logs and data. Required. A cluster that runs
	// there already is taken over.
	Dir string
	// Cache keeps Kafka's jars; "": DefaultCache.
	Cache string
	// Port is that of the first broker; the others follow, and then the
	// controllers. 0: free ports.
	Port int
	// ProxyPort is that of the first of three proxies that the caller puts
	// between its clients and the brokers; 0: none. Each broker then has one
	// more listener, whose clients it sends to its proxy. See Routes.
	ProxyPort int
	// Detach lets the processes outlive this one, and its terminal.
	Detach bool
}

// Cluster is three nodes, numbered 1 to 3. Its methods are not for concurrent
// use.
type Cluster struct {
	opts      Options
	java, lib string
	id        string
	nodes     []*node
}

// Start starts a cluster, or what is not running of one that was started in the
// same directory, and returns when it is ready: a fresh topic is in sync on all
// brokers, takes records, and a group finds its coordinator. When that fails
// what was started is stopped.
func Start(ctx context.Context, opts Options) (_ *Cluster, err error) {
	c, err := prepare(ctx, opts)
	if err != nil {
		return nil, err
	}
	var missing []*node
	for _, n := range c.nodes {
		if !n.running() {
			missing = append(missing, n)
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop(missing))
		}
	}()
	var formatting errgroup.Group
	for _, n := range missing {
		if err := c.write(n); err != nil {
			return nil, err
		}
		formatting.Go(func() error { return n.format(ctx, c.java, c.lib, c.id) })
	}
	if err := formatting.Wait(); err != nil {
		return nil, err
	}
	for _, n := range missing {
		if err := n.start(c.java, c.lib, opts.Detach); err != nil {
			return nil, err
		}
	}
	if err := c.save(); err != nil {
		return nil, err
	}
	if err := c.Ready(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// prepare finds java and the jars, and the cluster in the directory or a new
// one.
func prepare(ctx context.Context, opts Options) (*Cluster, error) {
	java, err := findJava()
	if err != nil {
		return nil, err
	}
	if opts.Cache == "" {
		if opts.Cache, err = DefaultCache(); err != nil {
			return nil, err
		}
	}
	c, err := Open(opts.Dir)
	if errors.Is(err, ErrNoCluster) {
		c, err = create(opts)
	}
	if err != nil {
		return nil, err
	}
	if c.nodes[0].ProxyPort != opts.ProxyPort {
		return nil, fmt.Errorf("the cluster in %s sends clients to a proxy at port %d, not %d; stop it and delete the directory", opts.Dir, c.nodes[0].ProxyPort, opts.ProxyPort)
	}
	c.opts, c.java = opts, java
	if c.lib, err = Jars(ctx, opts.Cache, kafka); err != nil {
		return nil, err
	}
	return c, c.freePorts(ctx)
}

// create describes a new cluster.
func create(opts Options) (*Cluster, error) {
	dir, err := filepath.Abs(opts.Dir)
	if err != nil || opts.Dir == "" {
		return nil, fmt.Errorf("localkafka: Options.Dir is %q; name a directory for the cluster", opts.Dir)
	}
	opts.Dir = dir
	ports, err := choosePorts(opts.Port)
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: opts, id: newClusterID()}
	for i := range size {
		n := &node{ID: i + 1, Port: ports[i], ControllerPort: ports[size+i], dir: filepath.Join(dir, fmt.Sprintf("node-%d", i+1))}
		if opts.ProxyPort != 0 {
			n.ProxyPort, n.ProxiedPort = opts.ProxyPort+i, opts.ProxyPort+size+i
		}
		c.nodes = append(c.nodes, n)
	}
	return c, nil
}

// newClusterID returns a random identifier in the form that Kafka asks for. It
// begins with a letter: Kafka's storage tool takes one that begins with "-" for a
// flag.
func newClusterID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails
	id[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// choosePorts returns those of the brokers and then of the controllers.
func choosePorts(first int) (ports [2 * size]int, err error) {
	for i := range ports {
		ports[i] = first + i
		if first != 0 {
			continue
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return ports, fmt.Errorf("find a free port: %w", err)
		}
		defer listener.Close() //nolint:gocritic // none before all are found
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// freePorts returns an error when a port that a stopped node needs is taken.
func (c *Cluster) freePorts(ctx context.Context) error {
	var config net.ListenConfig
	for _, n := range c.nodes {
		if n.running() {
			continue
		}
		for _, port := range n.ports() {
			listener, err := config.Listen(ctx, "tcp", loopback(port))
			if err != nil {
				return fmt.Errorf("port %d, which Kafka's node %d needs, is not free; choose others with the port option: %w", port, n.ID, err)
			}
			if err := listener.Close(); err != nil {
				return fmt.Errorf("free port %d again: %w", port, err)
			}
		}
	}
	return nil
}

// Addrs returns the brokers' addresses, to begin with.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addrs[i] = n.address()
	}
	return addrs
}

// Route is the way to a broker that leads through a proxy of the caller's.
type Route struct {
	Proxy  string // where the broker sends its clients: the proxy must listen there
	Target string // where the broker listens for what the proxy carries
}

// Routes returns those of the brokers, in their order; none without
// Options.ProxyPort. A client that begins with the proxies' addresses is sent to
// no others.
func (c *Cluster) Routes() (routes []Route) {
	for _, n := range c.nodes {
		if n.ProxyPort != 0 {
			routes = append(routes, Route{Proxy: loopback(n.ProxyPort), Target: loopback(n.ProxiedPort)})
		}
	}
	return routes
}

// Running returns the numbers of the nodes whose process is alive.
func (c *Cluster) Running() (ids []int) {
	for _, n := range c.nodes {
		if n.running() {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

func (c *Cluster) node(id int) (*node, error) {
	if id < 1 || id > len(c.nodes) {
		return nil, fmt.Errorf("there is no node %d; they are 1 to %d", id, len(c.nodes))
	}
	return c.nodes[id-1], nil
}

// Kill ends a node at once, as a crash would.
func (c *Cluster) Kill(id int) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	if err := n.signal(syscall.SIGKILL); err != nil {
		return err
	}
	if !n.awaitEnd(context.Background(), killTimeout) {
		return fmt.Errorf("node %d, process %d, is still there %s after SIGKILL", id, n.PID, killTimeout)
	}
	n.PID = 0
	return c.save()
}

// Restart starts a node again, stopping it first where it runs, and returns
// when the cluster is ready with all nodes.
func (c *Cluster) Restart(ctx context.Context, id int) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	if err := n.signal(syscall.SIGTERM); err != nil {
		return err
	}
	if !n.awaitEnd(ctx, stopTimeout) {
		if err := c.Kill(id); err != nil {
			return err
		}
	}
	if err := n.start(c.java, c.lib, c.opts.Detach); err != nil {
		return err
	}
	return errors.Join(c.save(), c.Ready(ctx))
}

const (
	stopTimeout = 20 * time.Second
	killTimeout = 5 * time.Second
)

// Stop ends all nodes at once, as the last alone would have no quorum to end
// in order: with SIGTERM, and after a while with SIGKILL. Data and logs remain.
func (c *Cluster) Stop() error { return c.stop(c.nodes) }

func (c *Cluster) stop(nodes []*node) error {
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.signal(syscall.SIGTERM))
	}
	deadline := time.Now().Add(stopTimeout)
	for _, n := range nodes {
		if !n.awaitEnd(context.Background(), time.Until(deadline)) {
			errs = append(errs, c.Kill(n.ID))
		}
		n.PID = 0
	}
	return errors.Join(append(errs, c.save())...)
}

// Remove deletes the cluster's directory. Stop it first.
func (c *Cluster) Remove() error {
	if ids := c.Running(); len(ids) > 0 {
		return fmt.Errorf("nodes %v still run; stop them before their data is deleted", ids)
	}
	if err := os.RemoveAll(c.opts.Dir); err != nil {
		return fmt.Errorf("delete the cluster's data: %w", err)
	}
	return nil
}

// ErrNoCluster says that a directory holds no cluster.
var ErrNoCluster = errors.New("there is no cluster")

// state is what a directory knows of its cluster.
type state struct {
	ID    string  `json:"id"`
	Nodes []*node `json:"nodes"`
}

func stateFile(dir string) string { return filepath.Join(dir, "cluster.json") }

// Open returns the cluster of a directory, running or not; it may be looked at
// and stopped, and started with Start. The error wraps ErrNoCluster when there
// is none.
func Open(dir string) (*Cluster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the cluster's directory: %w", err)
	}
	text, err := os.ReadFile(stateFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNoCluster, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the cluster's state: %w", err)
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil || len(s.Nodes) != size {
		return nil, fmt.Errorf("%s does not describe a cluster of %d nodes; end its java processes and delete %s: %w", stateFile(dir), size, dir, err)
	}
	c := &Cluster{opts: Options{Dir: dir}, id: s.ID, nodes: s.Nodes}
	for _, n := range c.nodes {
		n.dir = filepath.Join(dir, fmt.Sprintf("node-%d", n.ID))
	}
	return c, nil
}

// save keeps the processes' numbers, whole or not at all.
func (c *Cluster) save() error {
	text, err := json.MarshalIndent(state{c.id, c.nodes}, "", "  ")
	if err != nil {
		return fmt.Errorf("write the cluster's state: %w", err)
	}
	temporary := stateFile(c.opts.Dir) + ".new"
	if err := os.WriteFile(temporary, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the cluster's state: %w", err)
	}
	if err := os.Rename(temporary, stateFile(c.opts.Dir)); err != nil {
		return fmt.Errorf("write the cluster's state: %w", err)
	}
	return nil
}

// String says where the brokers are, as clients take it.
func (c *Cluster) String() string { return strings.Join(c.Addrs(), ",") }
