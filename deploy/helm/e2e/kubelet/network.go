package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// Network is a bridge of this machine, to which each pod is connected.
type Network struct {
	bridge string
	prefix netip.Prefix // the bridge has its first address

	mu   sync.Mutex
	used map[netip.Addr]bool
	last netip.Addr
	made int // pods so far, for the names of their devices
}

// ErrNoNamespaces means that this process may not make network namespaces.
var ErrNoNamespaces = errors.New("pods need network and mount namespaces, and so root: run this as root; in a container, with --privileged")

// Check returns an error if this process cannot run pods.
func Check() error {
	for program, from := range map[string]string{"ip": "iproute2", "nsenter": "util-linux"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("there is no %s on the PATH (Debian: apt-get install %s): %w", program, from, err)
		}
	}
	if os.Geteuid() != 0 {
		return ErrNoNamespaces
	}
	return nil
}

// NewNetwork makes the bridge. A bridge of this name without a pod was left by a process
// that was killed, and is used again.
func NewNetwork(ctx context.Context, bridge string, prefix netip.Prefix) (*Network, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	n := &Network{bridge: bridge, prefix: prefix.Masked(), used: make(map[netip.Addr]bool)}
	n.last = n.Host()
	if ports, err := os.ReadDir("/sys/class/net/" + bridge + "/brif"); err == nil {
		if len(ports) > 0 {
			return nil, fmt.Errorf("the bridge %s is in use: another run on this machine has pods on it; wait for its end", bridge)
		}
		if err := n.Close(ctx); err != nil {
			return nil, err
		}
	}
	for _, args := range [][]string{
		{"link", "add", bridge, "address", hardwareAddress, "type", "bridge"},
		{"address", "add", netip.PrefixFrom(n.Host(), prefix.Bits()).String(), "dev", bridge},
		{"link", "set", bridge, "up"},
	} {
		if err := ip(ctx, args...); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoNamespaces, err)
		}
	}
	return n, nil
}

// hardwareAddress is that of the bridge. Otherwise it would change as pods come and go, and
// pods would send to an old one for a while.
const hardwareAddress = "02:6f:6f:6e:61:01"

// Host is the address of this machine for the pods.
func (n *Network) Host() netip.Addr { return n.prefix.Addr().Next() }

// Close deletes the bridge.
func (n *Network) Close(ctx context.Context) error { return ip(ctx, "link", "delete", n.bridge) }

// connect gives an address to the network namespace of a process.
func (n *Network) connect(ctx context.Context, pid int) (netip.Addr, error) {
	address, device := n.take()
	namespace := strconv.Itoa(pid)
	enter := []string{"--target", namespace, "--net", "ip"}
	inside := func(args ...string) error { return command(ctx, "nsenter", append(enter, args...)...) }
	err := errors.Join(
		ip(ctx, "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", namespace),
		ip(ctx, "link", "set", device, "master", n.bridge, "up"),
		inside("link", "set", "lo", "up"),
		inside("address", "add", netip.PrefixFrom(address, n.prefix.Bits()).String(), "dev", "eth0"),
		inside("link", "set", "eth0", "up"),
	)
	if err != nil {
		n.free(address)
		return netip.Addr{}, fmt.Errorf("connect a pod: %w", err)
	}
	return address, nil
}

// take returns an address that no pod has, as late as possible after its last use.
func (n *Network) take() (netip.Addr, string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		n.last = n.last.Next()
		if !n.prefix.Contains(n.last) {
			n.last = n.Host()
			continue
		}
		if !n.used[n.last] {
			n.used[n.last] = true
			n.made++
			return n.last, fmt.Sprintf("%.8s-%d", n.bridge, n.made)
		}
	}
}

func (n *Network) free(address netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.used, address)
}

func ip(ctx context.Context, args ...string) error { return command(ctx, "ip", args...) }

func command(ctx context.Context, name string, args ...string) error {
	if output, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}
