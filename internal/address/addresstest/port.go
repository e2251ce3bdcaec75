// Package addresstest finds addresses for the servers of tests.
package addresstest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Port returns a port on 127.0.0.1 that nothing listens on. It is below the ports that the system
// gives to connections, so that it stays free while its server is not running.
func Port(t testing.TB) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(15_000)))
		if err == nil {
			_ = l.Close()
			return l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // TCP
		}
	}
	t.Fatal("no port is free")
	return 0
}
