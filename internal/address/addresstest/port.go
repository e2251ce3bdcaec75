// Package addresstest finds addresses for the servers of tests.
package addresstest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Port returns a port on 127.0.0.1 that nothing listens on. It is below the ports that the system
// gives to connections, so that it stays free while its server is not running. No other call
// returns it before the test ends, in this process or in another one: a UDP socket on the same
// port is its mark.
func Port(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.IntN(15_000)
		mark, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			_ = mark.Close()
			continue
		}
		_ = l.Close()
		t.Cleanup(func() { _ = mark.Close() })
		return port
	}
	t.Fatal("no port is free")
	return 0
}
