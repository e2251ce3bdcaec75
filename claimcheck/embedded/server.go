// Package embedded is an S3 server in the process, for the demo and for tests.
//
// It is gofakes3, a fake for tests, with files for objects. It has one bucket, and no
// versions, metadata or replicas. The parts of an upload are in memory until
// it is complete. In production, use S3 or a compatible server.
package embedded

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/rclone/gofakes3"
)

// Options configure the server.
type Options struct {
	Directory       string // holds the objects as BUCKET/KEY; made if it does not exist
	Bucket          string // the only one
	AccessKeyID     string // requests must be signed with this key and secret
	SecretAccessKey string
	Port            int          // on 127.0.0.1; another one if it is 0 or in use
	Logger          *slog.Logger // may be nil
}

// Handler returns a handler of S3's protocol. It needs the directory for itself.
func Handler(opts Options) (http.Handler, error) {
	if opts.AccessKeyID == "" || opts.SecretAccessKey == "" {
		return nil, errors.New("the embedded S3 server needs an access key ID and a secret access key")
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
		if r.URL.Query().Has("partNumber") && !verifyPart(r) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, "<Error><Code>BadDigest</Code></Error>") // the client may have disconnected
			return
		}
		server.ServeHTTP(w, r)
	}), nil
}

// verifyPart reports whether the body of a part has the hash that was signed. gofakes3
// compares the hash for objects, but not for parts.
func verifyPart(r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	sum := sha256.Sum256(body)
	signed := r.Header.Get("X-Amz-Content-Sha256")
	r.Body = io.NopCloser(bytes.NewReader(body))
	return err == nil && (len(signed) != hex.EncodedLen(sha256.Size) || signed == hex.EncodeToString(sum[:]))
}

// Server is a running server. Close ends it.
type Server struct {
	URL string

	http   *http.Server
	served chan error
}

const closeTimeout = 5 * time.Second

// Start starts a server that listens on loopback.
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

// Close stops the server. It waits up to closeTimeout for requests to complete.
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

// quiet logs errors as warnings, and everything else at the level debug.
type quiet struct{ logger *slog.Logger }

func (q quiet) Print(level gofakes3.LogLevel, v ...any) {
	if level == gofakes3.LogErr {
		q.logger.Warn("embedded S3 server", "err", fmt.Sprint(v...))
		return
	}
	q.logger.Debug("embedded S3 server", "text", fmt.Sprint(v...))
}
