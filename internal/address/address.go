// Package address parses and compares network addresses. It opens no connections and
// looks up no hosts.
package address

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Address is a host and a TCP port.
type Address struct {
	Host string // an IP address or a name; empty for all addresses of this machine
	Port int    // 0 for a free port
}

// Parse parses host:port. As for net.Listen, the port is a number or the name of a
// service.
func Parse(text string) (Address, error) {
	host, port, err := net.SplitHostPort(text)
	if wrong, ok := errors.AsType[*net.AddrError](err); ok {
		return Address{}, fmt.Errorf("is %q: %s; give HOST:PORT", text, wrong.Err)
	}
	if err != nil {
		return Address{}, fmt.Errorf("is %q, not HOST:PORT: %w", text, err)
	}
	if port == "" {
		return Address{}, fmt.Errorf("is %q, which has no port", text)
	}
	number, err := net.DefaultResolver.LookupPort(context.Background(), "tcp", port) // of numbers and a local file
	if err != nil {
		return Address{}, fmt.Errorf("is %q: %q is not a port; give 0 to 65535", text, port)
	}
	if host != "" && !isHost(host) {
		return Address{}, fmt.Errorf("is %q: %q is neither an IP address nor the name of a host", text, host)
	}
	return Address{host, number}, nil
}

// OnlyHere reports whether text is an address to which only this machine can connect.
func OnlyHere(text string) bool {
	a, err := Parse(text)
	return err == nil && a.isLoopback()
}

// isHost reports whether text can be an IP address or the name of a host.
func isHost(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	labels := strings.Split(strings.TrimSuffix(text, "."), ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	// A name that ends in a number would be a wrong IPv4 address.
	return strings.Trim(labels[len(labels)-1], "0123456789") != "" && len(text) <= 253
}

// Overlaps reports whether two servers on one machine cannot listen on both a and b. As
// names are not looked up, two names other than localhost are the same host only if they
// are equal.
func (a Address) Overlaps(b Address) bool {
	if a.Port != b.Port || a.Port == 0 {
		return false
	}
	if a.isAny() || b.isAny() || a.host() == b.host() {
		return true
	}
	return a.isLoopback() && b.isLoopback() && (a.host() == localhost || b.host() == localhost)
}

// SameMachine reports whether a and b certainly belong to one machine: they have the
// same host, and it is not a host that every machine has.
func (a Address) SameMachine(b Address) bool { return a.IsOfOneMachine() && a.host() == b.host() }

// IsOfOneMachine reports whether the host is specific to one machine. Loopback addresses
// and the unspecified address are not.
func (a Address) IsOfOneMachine() bool { return !a.isAny() && !a.isLoopback() }

const localhost = "localhost"

// host returns the host in a canonical form.
func (a Address) host() string {
	if ip, ok := a.ip(); ok {
		return ip.String()
	}
	return strings.TrimSuffix(strings.ToLower(a.Host), ".")
}

// ip returns the host if it is an IP address. It converts IPv4 in IPv6 to IPv4.
func (a Address) ip() (netip.Addr, bool) {
	ip, err := netip.ParseAddr(a.Host)
	if ip = ip.Unmap(); ip.IsLoopback() {
		ip = ip.WithZone("") // there is one loopback interface
	}
	return ip, err == nil
}

// isAny reports whether a stands for all addresses of the machine.
func (a Address) isAny() bool {
	ip, ok := a.ip()
	return a.Host == "" || ok && ip.IsUnspecified()
}

func (a Address) isLoopback() bool {
	ip, ok := a.ip()
	return a.host() == localhost || ok && ip.IsLoopback()
}
