package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/morphogenetic/oona/bus"
)

// handshakeTimeout limits TLS and SASL of one connection.
const handshakeTimeout = 5 * time.Second

// handshake returns conn with TLS.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (*tls.Conn, error) {
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secured, nil
}

// untrusted says which setting an error of a TLS handshake is about. It wraps
// bus.ErrUntrusted, unless the connection just broke.
func untrusted(address string, err error) error {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	name, misnamed := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	alert, alerted := errors.AsType[tls.AlertError](err)
	what := ""
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
		what = "it does not speak TLS; give the address of a listener with TLS, or do not set --bus-tls"
	case alerted:
		what = fmt.Sprintf("it ended the TLS handshake (%v); does it want a certificate, --bus-tls-cert-file, or another --bus-tls-min-version?", alert)
	default:
		return fmt.Errorf("TLS handshake with %s: %w", address, err)
	}
	return fmt.Errorf("%w: %s: %s: %w", bus.ErrUntrusted, address, what, err)
}
