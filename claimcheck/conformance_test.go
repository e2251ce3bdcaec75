package claimcheck_test

import (
	"encoding/pem"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/claimcheck/claimchecktest"
	"github.com/morphogenetic/oona/claimcheck/embedded"
)

const bucket = "kasmina-tensors"

func TestDirectory(t *testing.T) {
	claimchecktest.Run(t, func(t *testing.T) claimchecktest.Place {
		dir := t.TempDir()
		return claimchecktest.Place{
			Open: func(t *testing.T, limit int64) claimchecktest.Store { return openDirectory(t, dir, limit) },
			Overwrite: func(t *testing.T, key string, content []byte) {
				t.Helper()
				name := filepath.Join(dir, filepath.FromSlash(key))
				if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name+".new", content, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(name+".new", name); err != nil {
					t.Fatal(err)
				}
			},
			List: func(t *testing.T) (keys, unfinished []string) {
				t.Helper()
				return filesBelow(t, filepath.Join(dir, "tensors"), "tensors/"), filesBelow(t, filepath.Join(dir, "incoming"), "")
			},
			Age: ageIn(dir),
		}
	})
}

func openDirectory(t *testing.T, dir string, limit int64) *claimcheck.Store {
	t.Helper()
	store, err := claimcheck.OpenDirectory(dir, bucket, limit)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func filesBelow(t *testing.T, dir, prefix string) (names []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, prefix+name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestEmbeddedS3(t *testing.T) {
	t.Parallel()
	claimchecktest.Run(t, func(t *testing.T) claimchecktest.Place {
		dir := t.TempDir()
		place := claimchecktest.S3(t, startEmbeddedIn(t, dir, nil), bucket)
		place.Age = ageIn(filepath.Join(dir, bucket))
		return place
	})
}

// ageIn returns the Age of a Place whose objects are files below dir.
func ageIn(dir string) func(*testing.T, string, time.Time) {
	return func(t *testing.T, key string, modified time.Time) {
		t.Helper()
		if err := os.Chtimes(filepath.Join(dir, filepath.FromSlash(key)), modified, modified); err != nil {
			t.Fatal(err)
		}
	}
}

// startEmbedded starts a server. Its requests go through fault, unless that is nil.
func startEmbedded(t *testing.T, fault func(http.Handler) http.Handler) claimchecktest.Server {
	t.Helper()
	return startEmbeddedIn(t, t.TempDir(), fault)
}

func startEmbeddedIn(t *testing.T, dir string, fault func(http.Handler) http.Handler) claimchecktest.Server {
	t.Helper()
	server, handler := embeddedServer(t, dir, fault)
	listening := httptest.NewServer(handler)
	t.Cleanup(listening.Close)
	server.URL = listening.URL
	return server
}

// startSecure is startEmbedded with TLS. It returns the certificate of the server's
// authority in PEM.
func startSecure(t *testing.T, fault func(http.Handler) http.Handler) (claimchecktest.Server, []byte) {
	t.Helper()
	server, handler := embeddedServer(t, t.TempDir(), fault)
	listening := httptest.NewUnstartedServer(handler)
	listening.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of clients that refuse it
	listening.StartTLS()
	t.Cleanup(listening.Close)
	server.URL, server.Client = listening.URL, listening.Client()
	return server, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: listening.Certificate().Raw})
}

func embeddedServer(t *testing.T, dir string, fault func(http.Handler) http.Handler) (claimchecktest.Server, http.Handler) {
	t.Helper()
	server := claimchecktest.Server{AccessKeyID: "oona", SecretAccessKey: "secret-of-a-test"}
	handler, err := embedded.Handler(embedded.Options{
		Directory: dir, Bucket: bucket, AccessKeyID: server.AccessKeyID, SecretAccessKey: server.SecretAccessKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	if fault != nil {
		handler = fault(handler)
	}
	return server, handler
}
