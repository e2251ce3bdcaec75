package worker

import (
	"container/list"
	"log/slog"
	"net"
	"sync"
)

// limited is a listener with a limit of open connections. A new connection above the
// limit closes the oldest one. So nobody can keep others out, such as the probes of a
// kubelet, by holding connections open.
type limited struct {
	net.Listener
	most   int
	logger *slog.Logger

	mu   sync.Mutex
	open list.List // of *limitedConn, the oldest first
}

// limitedConn is a connection of a limited listener.
type limitedConn struct {
	net.Conn
	of    *limited
	place *list.Element
}

func (l *limited) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := &limitedConn{Conn: accepted, of: l}
	if oldest := l.add(conn); oldest != nil {
		l.logger.Debug("closing the oldest connection of the admin address, as there are too many", "client", oldest.RemoteAddr().String())
		_ = oldest.Conn.Close() // the server closes it again and looks at the error
	}
	return conn, nil
}

// add adds a connection. It returns the one to close instead, if there is one.
func (l *limited) add(conn *limitedConn) (oldest *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn.place = l.open.PushBack(conn)
	if l.open.Len() <= l.most {
		return nil
	}
	return l.open.Remove(l.open.Front()).(*limitedConn)
}

// Close does not lock while it closes the connection, which may take long.
func (c *limitedConn) Close() error {
	c.of.mu.Lock()
	c.of.open.Remove(c.place) // does nothing if it was removed before
	c.of.mu.Unlock()
	return c.Conn.Close()
}
