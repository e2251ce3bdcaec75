package worker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/morphogenetic/oona/internal/access"
)

// Limits of the admin server. A client that does not send its request or does not read
// the answer must not hold a connection for longer. A profile may take longer: net/http/pprof
// adds the time that was asked for to the time to write.
const (
	adminReadTimeout  = 10 * time.Second
	adminWriteTimeout = time.Minute
	adminHeaderBytes  = 32 << 10
	adminConnections  = 256
)

// Listen listens on a TCP address. Its error names the flag and says what to do. It
// wraps syscall.EADDRINUSE if the port is in use, syscall.EADDRNOTAVAIL if the
// address belongs to another machine, and *net.DNSError if the host is unknown.
func Listen(ctx context.Context, flag, address string) (net.Listener, error) {
	if err := CheckAddresses(Listener{flag, address}); err != nil {
		return nil, err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use by another process; stop it or give %s another port (0 picks a free one): %w", address, flag, err)
	}
	if unknown, ok := errors.AsType[*net.DNSError](err); ok || errors.Is(err, syscall.EADDRNOTAVAIL) {
		reason := "is not an address of this machine"
		if ok {
			reason = fmt.Sprintf("has the host %q, which cannot be resolved", unknown.Name)
		}
		return nil, fmt.Errorf("%s %s %s; give an address of this machine, or :PORT for all of them: %w", flag, address, reason, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", flag, err)
	}
	return listener, nil
}

// Secure returns a listener that speaks TLS with a configuration, or the listener itself
// if that is nil. net/http answers a plain HTTP request to it with 400.
func Secure(listener net.Listener, config *tls.Config) net.Listener {
	if config == nil {
		return listener
	}
	return tls.NewListener(listener, config)
}

// Admin is the HTTP server for operators, Prometheus and Kubernetes. It reports that
// the worker is ready when all conditions hold.
type Admin struct {
	title    string
	listener net.Listener
	server   *http.Server
	mux      *http.ServeMux
	metrics  *exposition
	prefix   string // of topics: the label prefix of metrics that are apart
	profiles bool
	pages    string       // links to the pages of Serve, for the index page
	gate     *access.Gate // nil if everyone may read everything
	logger   *slog.Logger

	mu         sync.Mutex
	conditions []condition
	notes      []note
}

// note is a line of /readyz that does not decide whether the worker is ready.
type note struct {
	name string
	text func() string
}

type condition struct {
	name  string
	check func() error
}

// NewAdmin returns the admin server of the worker called title. Its Run serves on
// listener.
func NewAdmin(title string, listener net.Listener, metrics prometheus.Gatherer, logger *slog.Logger) *Admin {
	mux := http.NewServeMux()
	a := &Admin{title: title, listener: listener, logger: logger, mux: mux, metrics: &exposition{logger: logger, parts: []prometheus.Gatherer{metrics}}}
	mux.Handle("GET /{$}", a.needs(access.Metrics, http.HandlerFunc(a.index)))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, "alive") })
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.Handle("GET /metrics", a.needs(access.Metrics, a.metrics))
	a.server = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       adminReadTimeout,
		WriteTimeout:      adminWriteTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    adminHeaderBytes,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	return a
}

// ServeProfiles adds /debug/pprof. It is called before Run.
func (a *Admin) ServeProfiles() {
	a.profiles = true
	for path, handler := range map[string]http.HandlerFunc{
		"/debug/pprof/":        pprof.Index,
		"/debug/pprof/cmdline": pprof.Cmdline,
		"/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol":  pprof.Symbol,
		"/debug/pprof/trace":   pprof.Trace,
	} {
		a.mux.Handle(path, a.needs(access.Profile, handler))
	}
}

// Serve adds a page, which clients with the role metrics may read. says is what the index
// page says of it, in HTML. It is called before Run.
func (a *Admin) Serve(path, says string, page http.Handler) {
	a.mux.Handle("GET "+path, a.needs(access.Metrics, page))
	a.pages += fmt.Sprintf("<li><a href=%q>%s</a>: %s</li>\n", path, path, says)
}

// Restrict lets only the clients that the gate knows read metrics, the index page and
// profiles, according to their roles. It is called before Run. Without it, or with nil,
// everyone may read everything. /livez and /readyz are not restricted.
func (a *Admin) Restrict(gate *access.Gate) { a.gate = gate }

// needs returns a handler that serves clients with a role, and refuses others.
func (a *Admin) needs(role access.Role, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.gate == nil {
			next.ServeHTTP(w, r)
			return
		}
		who, err := a.gate.Identify(r)
		switch {
		case err != nil:
			a.logger.Debug("admin request refused", "status", http.StatusUnauthorized, "path", r.URL.Path, "client", r.RemoteAddr, "err", err)
			w.Header().Set("WWW-Authenticate", access.Challenge(err))
			reply(w, http.StatusUnauthorized, err.Error())
		case !who.Has(role):
			a.logger.Debug("admin request refused", "status", http.StatusForbidden, "path", r.URL.Path, "client", r.RemoteAddr, "identity", who.Name)
			reply(w, http.StatusForbidden, fmt.Sprintf("the identity %s does not have the role %s, which this needs (--admin-access-file)", who.Name, role))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// ReadyWhen adds a condition. check returns nil if the condition holds, and the reason
// otherwise. Each request of /readyz calls it; it must be safe for concurrent use.
func (a *Admin) ReadyWhen(name string, check func() error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conditions = append(a.conditions, condition{name, check})
}

// Note adds a line to the answer of /readyz: what text returns, unless it is empty. The
// line does not decide whether the worker is ready. It is for conditions that all
// replicas share, such as a bus that is down. Ingest and exporter stay ready then, because
// another replica could do no better. An aggregator has this line, too, and becomes unready for
// another reason: it cannot show that it has read its partitions. text must be safe for
// concurrent use.
func (a *Admin) Note(name string, text func() string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notes = append(a.notes, note{name, text})
}

// noted returns the lines of the notes, each with a line end before it.
func (a *Admin) noted() (lines string) {
	a.mu.Lock()
	notes := a.notes
	a.mu.Unlock()
	for _, n := range notes {
		if text := n.text(); text != "" {
			lines += "\n" + n.name + ": " + text
		}
	}
	return lines
}

// Ready returns nil if the worker is ready, and the reason otherwise.
func (a *Admin) Ready() error {
	a.mu.Lock()
	conditions := a.conditions
	a.mu.Unlock()
	for _, c := range conditions {
		if err := c.check(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// Addr returns the address that the server listens on.
func (a *Admin) Addr() net.Addr { return a.listener.Addr() }

// Run serves until ctx ends.
func (a *Admin) Run(ctx context.Context) error {
	a.logger.Info("admin server listens", "address", a.Addr().String())
	served := make(chan error, 1)
	go func() { served <- a.server.Serve(a.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the admin address: %w", err)
	case <-ctx.Done():
	}
	// A scrape or a profile may be cut off.
	if err := a.server.Close(); err != nil {
		a.logger.Debug("closing the admin server", "err", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the admin address: %w", err)
	}
	return nil
}

func (a *Admin) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := a.Ready(); err != nil {
		reply(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+a.noted())
		return
	}
	reply(w, http.StatusOK, "ready"+a.noted())
}

func reply(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the client may have disconnected
}

func (a *Admin) index(w http.ResponseWriter, _ *http.Request) {
	state := "ready"
	if err := a.Ready(); err != nil {
		state = "not ready: " + err.Error()
	}
	profiles := ""
	if a.profiles {
		profiles = profilesLink
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = fmt.Fprintf(w, indexPage, html.EscapeString(a.title), html.EscapeString(ReadBuild().String()), html.EscapeString(state+a.noted()), a.pages+profiles)
}

const indexPage = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>%[1]s</title>
<h1>%[1]s</h1>
<p>%[2]s</p>
<p>%[3]s</p>
<ul>
<li><a href="/livez">/livez</a>: the process answers</li>
<li><a href="/readyz">/readyz</a>: whether it is ready for work; ingest and exporter are ready even if the bus is down</li>
<li><a href="/metrics">/metrics</a>: for Prometheus</li>
%[4]s</ul>
</html>
`

const profilesLink = `<li><a href="/debug/pprof/">/debug/pprof/</a>: profiles</li>
`
