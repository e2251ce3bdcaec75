// Package embedded is an S3 server in the process, for the demo and for tests.
//
// It is gofakes3, which calls itself a fake for testing, with objects that are
// files: one bucket, no versions, no metadata, no replicas. Production means S3,
// or a server of its protocol.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/rclone/gofakes3"
)

// Options say how the server is made.
type Options struct {
	Directory       string // where objects are kept, as BUCKET/KEY; made if need be
	Bucket          string // the only one
	AccessKeyID     string // requests that are not signed with the two are refused
	SecretAccessKey string
	Port            int          // preferred on 127.0.0.1; when it is taken, or 0, any
	Logger          *slog.Logger // nil: silent
}

// Handler serves S3's protocol. Nobody else may use the directory.
func Handler(opts Options) (http.Handler, error) {
	if opts.AccessKeyID == "" || opts.SecretAccessKey == "" {
		return nil, errors.New("the embedded S3 server needs an access key, id and secret")
	}
	files, err := openFiles(opts.Directory, opts.Bucket)
	if err != nil {
		return nil, fmt.Errorf("open the embedded S3 server's directory: %w", err)
	}
	logger := opts.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	server := gofakes3.New(files,
		gofakes3.WithV4Auth(map[string]string{opts.AccessKeyID: opts.SecretAccessKey}),
		gofakes3.WithLogger(quiet{logger}),
	).Server()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server.ServeHTTP(w, r.WithContext(withPayload(r.Context(), r.Header)))
	}), nil
}

// Server runs until Close.
type Server struct {
	URL string

	http   *http.Server
	served chan error
}

// closeTimeout bounds Close.
const closeTimeout = 5 * time.Second

// Start returns a server that listens on loopback.
func Start(ctx context.Context, opts Options) (*Server, error) {
	handler, err := Handler(opts)
	if err != nil {
		return nil, err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", opts.Port))
	if errors.Is(err, syscall.EADDRINUSE) {
		listener, err = config.Listen(ctx, "tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, fmt.Errorf("start the embedded S3 server: %w", err)
	}
	s := &Server{
		URL:    "http://" + listener.Addr().String(),
		http:   &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second},
		served: make(chan error, 1),
	}
	go func() { s.served <- s.http.Serve(listener) }()
	return s, nil
}

// Close lets requests in hand end, for a while, and stops.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("stop the embedded S3 server: %w", err)
	}
	return nil
}

// quiet logs each request for those who debug, and what goes wrong within.
type quiet struct{ logger *slog.Logger }

func (q quiet) Print(level gofakes3.LogLevel, v ...any) {
	if level == gofakes3.LogErr {
		q.logger.Warn("embedded S3 server", "err", fmt.Sprint(v...))
		return
	}
	q.logger.Debug("embedded S3 server", "text", fmt.Sprint(v...))
}
