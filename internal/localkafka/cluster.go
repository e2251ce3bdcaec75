// Package localkafka runs real Apache Kafka brokers for tests, as the embedded broker may
// behave differently: three on loopback, unless Options ask for others.
//
// Kafka is downloaded from Maven Central into a cache once (43 MiB). Each of the Java
// processes takes 350 MB, and 730 MB under load. The command kafkactl starts a
// cluster that continues to run, and stops it.
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

// defaultNodes is the number of nodes unless options say otherwise: the fewest that
// tolerate the loss of one.
const defaultNodes = 3

// Options configure a cluster.
type Options struct {
	// Dir is the directory of configuration, logs and data. It is required. If a
	// cluster runs there, Start uses it.
	Dir string
	// Cache is the directory of Kafka's jars. The default is DefaultCache.
	Cache string
	// Nodes is the number of nodes. The default is 3.
	Nodes int
	// Host is the IP address on which the brokers listen for clients. The default is
	// 127.0.0.1. The controllers always use 127.0.0.1.
	Host string
	// Port is the port of the first broker. The next ports are for the other
	// brokers and then for the controllers. If it is 0, free ports are chosen.
	Port int
	// ProxyPort is the port of the first of the caller's proxies between clients and
	// brokers, or 0. With it, each broker has another listener, and names its proxy
	// to the clients of this listener. See Routes.
	ProxyPort int
	// Secure adds secure listeners, or is nil. It cannot be combined with ProxyPort.
	// The ports after those of the controllers are for them.
	Secure *Secure
	// Detach lets the processes run on after this process and its terminal.
	Detach bool
}

// Cluster has nodes that are numbered from 1 on. It is not safe for concurrent use.
type Cluster struct {
	opts      Options
	java, lib string
	id        string
	nodes     []*node
}

// Start starts the nodes of a cluster that do not run yet, and returns when the cluster
// is ready: a new topic is in sync on all brokers and accepts records, and a group finds
// its coordinator. On an error, Start stops the nodes that it started.
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
	if err := c.setUsers(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// prepare finds java and the jars. It returns the cluster in the directory, or a new
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
		return nil, fmt.Errorf("the cluster in %s has the proxy port %d, not %d; stop it and delete the directory", opts.Dir, c.nodes[0].ProxyPort, opts.ProxyPort)
	}
	if err := c.checkSecure(opts); err != nil {
		return nil, err
	}
	c.opts, c.java = opts, java
	if c.lib, err = Jars(ctx, opts.Cache, kafka); err != nil {
		return nil, err
	}
	return c, c.checkPorts(ctx)
}

// create returns a new cluster, which is not running.
func create(opts Options) (*Cluster, error) {
	dir, err := filepath.Abs(opts.Dir)
	if err != nil || opts.Dir == "" {
		return nil, fmt.Errorf("localkafka: Options.Dir is %q; give a directory for the cluster", opts.Dir)
	}
	opts.Dir = dir
	if opts.Nodes == 0 {
		opts.Nodes = defaultNodes
	}
	listeners := 0
	if opts.Secure != nil {
		listeners = len(opts.Secure.Listeners)
	}
	ports, err := choosePorts(opts.Port, (2+listeners)*opts.Nodes)
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: opts, id: newClusterID()}
	for i := range opts.Nodes {
		n := &node{ID: i + 1, Host: opts.Host, Port: ports[i], ControllerPort: ports[opts.Nodes+i], dir: filepath.Join(dir, fmt.Sprintf("node-%d", i+1))}
		if opts.ProxyPort != 0 {
			n.ProxyPort, n.ProxiedPort = opts.ProxyPort+i, opts.ProxyPort+opts.Nodes+i
		}
		for l := range listeners {
			n.SecurePorts = append(n.SecurePorts, ports[(2+l)*opts.Nodes+i])
		}
		c.nodes = append(c.nodes, n)
	}
	return c, nil
}

// newClusterID returns a random identifier in Kafka's form. It begins with a letter, as
// Kafka's storage tool would parse a leading "-" as a flag.
func newClusterID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails
	id[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// choosePorts returns the ports of the brokers, then those of the controllers, and then
// those of each secure listener.
func choosePorts(first, count int) (ports []int, err error) {
	for i := range count {
		ports = append(ports, first+i)
		if first != 0 {
			continue
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return ports, fmt.Errorf("find a free port: %w", err)
		}
		defer listener.Close() //nolint:gocritic // all stay open until the last is found
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// checkPorts returns an error if a port of a stopped node is in use.
func (c *Cluster) checkPorts(ctx context.Context) error {
	var config net.ListenConfig
	for _, n := range c.nodes {
		if n.running() {
			continue
		}
		for _, address := range n.listens() {
			listener, err := config.Listen(ctx, "tcp", address)
			if err != nil {
				return fmt.Errorf("node %d of Kafka cannot listen on %s; choose another port with Options.Port (-port): %w", n.ID, address, err)
			}
			if err := listener.Close(); err != nil {
				return fmt.Errorf("close the listener on %s: %w", address, err)
			}
		}
	}
	return nil
}

// Addrs returns the addresses of the brokers.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addrs[i] = n.address()
	}
	return addrs
}

// Route is the way to a broker through a proxy of the caller.
type Route struct {
	Proxy  string // the address that the broker names to clients; the proxy must listen on it
	Target string // the address of the broker that the proxy must connect to
}

// Routes returns the routes to the brokers, in order, if Options.ProxyPort is set. A
// client that starts with addresses of proxies uses only proxies.
func (c *Cluster) Routes() (routes []Route) {
	for _, n := range c.nodes {
		if n.ProxyPort != 0 {
			routes = append(routes, Route{Proxy: loopback(n.ProxyPort), Target: loopback(n.ProxiedPort)})
		}
	}
	return routes
}

// Running returns the numbers of the nodes that run.
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
		return nil, fmt.Errorf("node %d does not exist; give 1 to %d", id, len(c.nodes))
	}
	return c.nodes[id-1], nil
}

// Kill kills a node, like a crash.
func (c *Cluster) Kill(id int) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	if err := n.signal(syscall.SIGKILL); err != nil {
		return err
	}
	if !n.awaitEnd(context.Background(), killTimeout) {
		return fmt.Errorf("node %d, process %d, still runs %s after SIGKILL", id, n.PID, killTimeout)
	}
	n.PID = 0
	return c.save()
}

// Restart stops a node if it runs, starts it, and returns when the cluster is ready.
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
	if err := c.write(n); err != nil { // Secure may have changed
		return err
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

// Stop stops all nodes, with SIGTERM and later with SIGKILL. It stops them at the same
// time, as the last ones could not end in order without a quorum. Data and logs remain.
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

// Remove deletes the directory of a stopped cluster.
func (c *Cluster) Remove() error {
	if ids := c.Running(); len(ids) > 0 {
		return fmt.Errorf("nodes %v still run; stop the cluster before its data is deleted", ids)
	}
	if err := os.RemoveAll(c.opts.Dir); err != nil {
		return fmt.Errorf("delete the cluster's data: %w", err)
	}
	return nil
}

// ErrNoCluster means that a directory has no cluster.
var ErrNoCluster = errors.New("there is no cluster")

// state is the content of the state file.
type state struct {
	ID    string  `json:"id"`
	Nodes []*node `json:"nodes"`
}

func stateFile(dir string) string { return filepath.Join(dir, "cluster.json") }

// Open returns the cluster of a directory, which may be running or not. It may be
// stopped, but not restarted; Start returns one that can. The error wraps ErrNoCluster
// if the directory has no cluster.
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
	if err := json.Unmarshal(text, &s); err != nil || len(s.Nodes) == 0 {
		return nil, fmt.Errorf("%s does not describe a cluster; stop its java processes and delete %s: %w", stateFile(dir), dir, err)
	}
	c := &Cluster{opts: Options{Dir: dir}, id: s.ID, nodes: s.Nodes}
	for _, n := range c.nodes {
		n.dir = filepath.Join(dir, fmt.Sprintf("node-%d", n.ID))
	}
	return c, nil
}

// save writes the state file atomically.
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

// String returns the addresses of the brokers, separated by commas.
func (c *Cluster) String() string { return strings.Join(c.Addrs(), ",") }
