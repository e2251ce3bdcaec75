package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binaries are the paths of the programs that the test runs.
var binaries struct{ oona, ingest, aggregate string }

func TestMain(m *testing.M) {
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (status int, err error) {
	dir, err := os.MkdirTemp("", "oona-registry-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cmd := exec.Command("go", "build", "-o", dir, "./cmd/oona", "./cmd/ingest", "./cmd/aggregate")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("go build: %w\n%s", err, out)
	}
	binaries.oona, binaries.ingest, binaries.aggregate = filepath.Join(dir, "oona"), filepath.Join(dir, "ingest"), filepath.Join(dir, "aggregate")
	return m.Run(), nil
}

// The last version of the registry that runs with Java 17.
const (
	artefact = "apicurio-registry-app"
	version  = "3.0.9"
)

// fetchRegistry returns the directory of the registry. Maven fetches it if it is not in the
// cache.
func fetchRegistry(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the registry needs it: %v", err)
		}
	}
	home, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(home, "oona", artefact+"-"+version)
	if _, err := os.Stat(cache); err == nil {
		return cache
	}
	if err := os.MkdirAll(filepath.Dir(cache), 0o755); err != nil {
		t.Fatal(err)
	}
	work, err := os.MkdirTemp(filepath.Dir(cache), "fetch-") // an incomplete one must not have the final name
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	fetch := exec.CommandContext(t.Context(), "mvn", "-B", "-q", "dependency:copy", "-Dartifact=io.apicurio:"+artefact+":"+version+":tar.gz:all", "-DoutputDirectory="+work)
	fetch.Dir = work
	if out, err := fetch.CombinedOutput(); err != nil {
		t.Fatalf("fetch the registry with Maven: %v\n%s", err, out)
	}
	unpack(t, filepath.Join(work, artefact+"-"+version+"-all.tar.gz"), filepath.Join(work, "unpacked"))
	if err := os.Rename(filepath.Join(work, "unpacked"), cache); err != nil {
		t.Fatal(err)
	}
	return cache
}

func unpack(t *testing.T, archive, to string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plain, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for files := tar.NewReader(plain); ; {
		header, err := files.Next()
		if err == io.EOF {
			return
		}
		if err != nil || !filepath.IsLocal(header.Name) {
			t.Fatal(header, err)
		}
		path := filepath.Join(to, header.Name)
		if header.Typeflag == tar.TypeDir {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// server is a registry whose data outlive its process.
type server struct {
	url  string
	dir  string
	data string
	port int
	cmd  *exec.Cmd
	done chan struct{}
	log  bytes.Buffer // valid when the process has ended
}

func startRegistry(t *testing.T) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dir: fetchRegistry(t), data: filepath.Join(t.TempDir(), "schemas"), port: listener.Addr().(*net.TCPAddr).Port}
	listener.Close()
	s.url = fmt.Sprintf("http://127.0.0.1:%d/apis/ccompat/v7", s.port)
	t.Cleanup(func() {
		s.stop(t)
		if t.Failed() {
			said := s.log.String()
			t.Logf("the registry said at last:\n%s", said[max(0, len(said)-4000):])
		}
	})
	s.start(t)
	return s
}

// start starts the registry, perhaps again, and waits until it answers.
func (s *server) start(t *testing.T) {
	t.Helper()
	s.cmd = exec.Command("java", "-Xmx512m", "-jar", artefact+"-"+version+"-runner.jar")
	s.cmd.Dir = s.dir
	s.cmd.Env = append(os.Environ(), "QUARKUS_HTTP_HOST=127.0.0.1", fmt.Sprintf("QUARKUS_HTTP_PORT=%d", s.port),
		"APICURIO_STORAGE_KIND=sql", "APICURIO_STORAGE_SQL_KIND=h2", "APICURIO_DATASOURCE_URL=jdbc:h2:file:"+s.data)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.done = make(chan struct{})
	go func() {
		_ = s.cmd.Wait() // the error is that it was killed
		close(s.done)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/subjects", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-s.done:
			t.Fatal("the registry has ended")
		case <-ctx.Done():
			t.Fatalf("the registry does not answer: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends the registry. It is not killed, as it would lose its last schemas.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if s.done == nil {
		return
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	<-s.done
}

// requirePython returns a Python with Confluent's serializers, or skips the test unless
// Python is required.
func requirePython(t *testing.T) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	var said []byte
	if err == nil {
		said, err = exec.CommandContext(t.Context(), python, "-c", "import fastavro; from confluent_kafka.schema_registry.avro import AvroSerializer").CombinedOutput()
	}
	if err == nil {
		return python
	}
	why := fmt.Sprintf("Python with Confluent's serializers does not run; make python installs them: %v %s", err, strings.TrimSpace(string(said)))
	if os.Getenv("OONA_REQUIRE_PYTHON") != "" {
		t.Fatal(why)
	}
	t.Skip("SKIPPED: " + why)
	return ""
}
