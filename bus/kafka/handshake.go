package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/morphogenetic/oona/bus"
)

// handshakeTimeout is the maximum time for the TLS and SASL handshakes of a connection.
const handshakeTimeout = 5 * time.Second

// handshake makes the TLS handshake on conn and returns the secure connection.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (*tls.Conn, error) {
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secured, nil
}

// untrusted adds the name of the setting that is the cause of an error of a TLS handshake. The
// result wraps bus.ErrUntrusted, unless the connection was only interrupted.
func untrusted(address string, err error) error {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	name, misnamed := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	ended, alerted := errors.AsType[*net.OpError](err)
	alerted = alerted && ended.Op == "remote error" // Go's name for an alert
	var what string
	switch {
	case unknown:
		what = "its certificate is of an authority that --bus-tls-ca-file (or the system, without it) does not have"
	case misnamed:
		what = fmt.Sprintf("its certificate is not for %s; use an address in --brokers and in the brokers' advertised.listeners that the certificate has, or give --bus-tls-server-name", name.Host)
	case isInvalid && invalid.Reason == x509.Expired:
		what = "its certificate has expired or is not valid yet; renew it, or correct the clock"
	case isInvalid:
		what = "its certificate cannot be used"
	case plain:
		what = "it does not speak TLS, and --bus-tls is set; give the address of a listener with TLS in --brokers"
	case alerted:
		what = "it refuses the TLS connection; does it want a client certificate (--bus-tls-cert-file) of an authority that it has, or another --bus-tls-min-version?"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		what = "it closes the connection during the TLS handshake; --bus-tls needs the address of a listener with TLS in --brokers, and a broker behind it that is up"
	default:
		return fmt.Errorf("TLS handshake with %s: %w", address, err)
	}
	return fmt.Errorf("%w: %s: %s: %w", bus.ErrUntrusted, address, what, err)
}

// watched is a connection that explains TLS alerts that a broker sends after the handshake, or on a
// connection without TLS. With TLS 1.3, a broker refuses the certificate of a client only then.
type watched struct {
	net.Conn
	address string
	secured bool
	begun   bool                  // whether something was read
	failure atomic.Pointer[error] // returned from then on, because sarama continues after some errors
}

// alertRecord is the first byte of a TLS alert. It cannot be the first byte of an answer, because
// that answer would have 350 MB.
const alertRecord = 0x15

var errTLS = errors.New("it speaks TLS; set --bus-tls, or give the address of a listener without TLS")

func (w *watched) Read(b []byte) (int, error) {
	if failure := w.failure.Load(); failure != nil {
		return 0, *failure
	}
	n, err := w.Conn.Read(b)
	if !w.begun && n > 0 {
		w.begun = true
		if !w.secured && b[0] == alertRecord {
			return 0, w.fail(fmt.Errorf("%w: %s: %w", bus.ErrUntrusted, w.address, errTLS))
		}
	}
	if ended, ok := errors.AsType[*net.OpError](err); ok && ended.Op == "remote error" {
		return n, w.fail(untrusted(w.address, err))
	}
	return n, err
}

func (w *watched) Write(b []byte) (int, error) {
	if failure := w.failure.Load(); failure != nil {
		return 0, *failure
	}
	return w.Conn.Write(b)
}

func (w *watched) fail(err error) error {
	w.failure.Store(&err)
	return err
}
