package worker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
)

// ReadyFlag is a flag that asks the running worker whether it is ready, and exits. An
// image has no shell and no curl, so container runtimes whose health checks are
// commands run the binary with this flag.
type ReadyFlag bool

// readyTimeout is the time limit for the answer of /readyz.
const readyTimeout = 5 * time.Second

// errNotReady is wrapped if the worker answers that it is not ready.
var errNotReady = errors.New("the worker is not ready")

// askReady asks the worker with the settings of cfg whether it is ready, and writes its
// answer to out.
func askReady(ctx context.Context, cfg *Config, out io.Writer) error {
	address, err := reachable(cfg.AdminAddress)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	scheme := "http"
	if cfg.AdminTLS.CertFile != "" {
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s://%s/readyz", scheme, address), nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", address, err)
	}
	transport := &http.Transport{ // without a proxy
		DisableKeepAlives: true,
		// The question has no secrets, and goes to an address of this machine, which the
		// certificate need not have.
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}, //nolint:gosec // see above
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return fmt.Errorf("no worker answers on --admin-address %s; give the running worker's settings: %w", cfg.AdminAddress, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", address, err)
	}
	if _, err := fmt.Fprintln(out, strings.TrimSpace(string(body))); err != nil {
		return fmt.Errorf("print the answer of %s: %w", address, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: /readyz answered %s", errNotReady, response.Status)
	}
	return nil
}

// reachable returns an address on which a server that listens on address can be reached
// from the same machine.
func reachable(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" {
		return "", &oona.FieldError{Field: "--admin-address", Reason: fmt.Sprintf("is %s; --check-ready needs the port of the running worker", address)}
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case host == "":
		host = "localhost"
	case err == nil && ip.IsUnspecified() && ip.Is4():
		host = "127.0.0.1"
	case err == nil && ip.IsUnspecified():
		host = "::1"
	}
	return net.JoinHostPort(host, port), nil
}
