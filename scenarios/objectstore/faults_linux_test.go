package objectstore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	kafkabus "github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/claimcheck/claimchecktest"
	"github.com/morphogenetic/oona/schemas/avro"
)

const (
	bucket     = "kasmina-tensors"
	tensorSize = 100_000
)

// site is an ingest and its log.
type site struct {
	*testing.T
	bus    kafkabus.Config
	topics oona.Topics
	store  *gateway
	config claimcheck.Config
	url    string

	sequence     int64
	acknowledged map[int64]bool // by sequence: whether the frame had a tensor
}

// Row 17. The object store is slow, down, or full. Frames without large tensors are accepted.
// The others are refused in time, and accepted when they are sent again. The log has exactly
// the acknowledged frames, and the store has the tensor of each claim. A reader notices wrong
// bytes.
func TestStoreBreaks(t *testing.T) {
	objects := filepath.Join(t.TempDir(), "objects")
	small := mountSmall(t, objects)
	s := newSite(t, startGateway(t, objects))
	s.startIngest()
	s.flows()

	s.broken("slow", func() { s.store.signal(t, syscall.SIGSTOP) }, func() { s.store.signal(t, syscall.SIGCONT) })
	s.broken("down", func() { s.store.kill(t) }, func() { s.store.start(t) })
	if small {
		filler := filepath.Join(objects, "filler")
		s.broken("full", func() { fill(t, filler) }, func() {
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
		})
	} else {
		t.Log("SKIPPED: a small file system cannot be mounted here, so that none was filled")
	}

	claims := s.checkLog()
	s.spoil(claims[0])
}

func newSite(t *testing.T, store *gateway) *site {
	t.Helper()
	store.CreateBucket(t, bucket)
	broker, err := embedded.Start(t.Context(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	})
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{T: t, bus: kafkabus.Config{Brokers: broker.Addrs, ClientID: "objectstore"}, topics: topics, store: store, acknowledged: map[int64]bool{}}
	if _, err := kafkabus.New(s.bus, nil).Apply(t.Context(), topics.Specs(1)); err != nil {
		t.Fatal(err)
	}
	s.config = claimcheck.DefaultConfig()
	s.config.Kind, s.config.S3 = claimcheck.KindS3, store.Config(t)
	return s
}

// command returns the command line of the binary. The given flags override its others.
func (s *site) command(flags ...string) *exec.Cmd {
	return exec.Command(binaries.ingest, append([]string{"--brokers", s.bus.Brokers[0], "--listen", "127.0.0.1:0", "--admin-address", "127.0.0.1:0", "--log-format", "json",
		"--tensor-store", "s3", "--tensor-bucket", bucket, "--store-timeout", "1s", "--tensor-timeout", "2s",
		"--s3-endpoint", s.config.S3.Endpoint, "--s3-path-style", "--s3-access-key-id", s.config.S3.AccessKeyID, "--s3-secret-access-key-file", s.config.S3.SecretFile}, flags...)...)
}

// Ingest does not start with a store that refuses it, and names the setting.
func TestRefusedAtTheStart(t *testing.T) {
	s := newSite(t, startGateway(t, filepath.Join(t.TempDir(), "objects")))
	wrong := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(wrong, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	page := httptest.NewServer(http.NotFoundHandler())
	defer page.Close()
	for _, c := range []struct {
		names  string
		status int // 2 if the check of the configuration finds it without the store
		flags  []string
		env    string
	}{
		{"--s3-region", 1, []string{"--s3-region", "eu-west-1"}, ""},
		{"--s3-access-key-id", 1, []string{"--s3-secret-access-key-file", wrong}, ""},
		{"--s3-access-key-id", 1, []string{"--s3-access-key-id", "nobody"}, ""},
		{"--tensor-bucket", 1, []string{"--tensor-bucket", "another-bucket"}, ""},
		{"--s3-endpoint", 1, []string{"--s3-endpoint", page.URL}, ""},
		{"$TMPDIR", 2, nil, "TMPDIR=" + filepath.Join(t.TempDir(), "missing")},
	} {
		cmd := s.command(c.flags...)
		cmd.Env = append(os.Environ(), c.env)
		said, err := cmd.CombinedOutput()
		if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) || failed.ExitCode() != c.status || !strings.Contains(string(said), c.names+": ") {
			t.Errorf("%v %s: ends with %v, and says\n%s", c.flags, c.env, err, said)
		}
	}
}

// Ingest starts while the store is down, and accepts tensors when it is up.
func TestDownAtTheStart(t *testing.T) {
	s := newSite(t, startGateway(t, filepath.Join(t.TempDir(), "objects")))
	s.store.kill(t)
	s.startIngest()
	s.send(s.frame(false), http.StatusOK)
	s.putTensor(http.StatusServiceUnavailable)
	s.store.start(t)
	s.flows()
}

// startIngest starts the binary and waits until it accepts frames.
func (s *site) startIngest() {
	s.Helper()
	cmd := s.command()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	address, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var line struct{ Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "ingest accepts frames" {
				address <- line.Address
			}
			s.Log("ingest: " + lines.Text())
		}
	}()
	s.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if err := cmd.Wait(); err != nil {
			s.Errorf("ingest: %v", err)
		}
	})
	select {
	case listening := <-address:
		s.url = "http://" + listening
	case <-ended:
		s.Fatal("ingest has ended")
	}
}

// frame makes a frame with the next sequence, with or without a large tensor.
func (s *site) frame(withTensor bool) *oona.Frame {
	s.sequence++
	f := &oona.Frame{
		Run: "run", Layer: "layer", Producer: "p", Epoch: 1, Sequence: s.sequence, ObservedAt: oona.MicrosOf(time.Now()),
		Seeds: []oona.SeedID{0}, States: []oona.State{oona.Training},
	}
	if withTensor {
		f.Tensors = []oona.Tensor{{Name: "w", DType: "uint8", Shape: []int64{tensorSize}, Data: claimchecktest.Content(uint64(f.Sequence), tensorSize)}}
	}
	return f
}

// send sends a frame, checks the status, and records whether it was acknowledged.
func (s *site) send(f *oona.Frame, want int) {
	s.Helper()
	s.request(http.MethodPost, "/v1/frames", "application/avro", avro.AppendFrame(nil, f), want)
	if want == http.StatusOK {
		s.acknowledged[f.Sequence] = len(f.Tensors) > 0
	}
}

// request checks that the answer comes in time with the wanted status.
func (s *site) request(method, path, mediaType string, body []byte, want int) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	request.Header.Set("Content-Type", mediaType)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != want {
		s.Fatalf("%s %s is answered %d, want %d: %s %v", method, path, answer.StatusCode, want, text, err)
	}
	if want == http.StatusServiceUnavailable && (answer.Header.Get("Retry-After") == "" || !strings.Contains(string(text), "urn:oona:problem:store")) {
		s.Fatalf("the refusal is not the store's: %s", text)
	}
}

func (s *site) putTensor(want int) {
	s.Helper()
	s.sequence++
	s.request(http.MethodPut, "/v1/tensors", "application/octet-stream", claimchecktest.Content(uint64(s.sequence), tensorSize), want)
}

// flows sends frames of all kinds, which must be accepted.
func (s *site) flows() {
	s.Helper()
	s.send(s.frame(false), http.StatusOK)
	s.send(s.frame(true), http.StatusOK)
	s.putTensor(http.StatusCreated)
}

// broken causes a fault and ends it. The refusals show that the fault occurred.
func (s *site) broken(name string, begin, end func()) {
	s.Helper()
	s.Logf("the store is %s", name)
	refused := s.frame(true)
	begin()
	s.send(s.frame(false), http.StatusOK)
	s.send(refused, http.StatusServiceUnavailable)
	s.putTensor(http.StatusServiceUnavailable)
	s.send(s.frame(false), http.StatusOK)
	end()
	s.send(refused, http.StatusOK)
	s.flows()
}

// checkLog compares the log with the acknowledged frames, and returns its claims.
func (s *site) checkLog() (claims []oona.TensorClaim) {
	s.Helper()
	store, err := claimcheck.Open(s.config)
	if err != nil {
		s.Fatal(err)
	}
	log, err := kafkabus.New(s.bus, slog.New(slog.DiscardHandler)).Reader(bus.ReaderOptions{})
	if err != nil {
		s.Fatal(err)
	}
	defer log.Close()
	messages, err := log.Subscribe(s.Context(), s.topics.SeedMetrics)
	if err != nil {
		s.Fatal(err)
	}
	end := log.Ranges(s.topics.SeedMetrics)[0].End
	found := map[int64]bool{}
	for read := int64(0); read < end; read++ {
		message := <-messages
		message.Ack()
		if message.Metadata.Get(oona.HeaderRecord) != "" {
			continue
		}
		var f oona.Frame
		if _, err := new(avro.FrameDecoder).Decode(message.Payload, &f); err != nil {
			s.Fatal(err)
		}
		if _, known := s.acknowledged[f.Sequence]; !known || found[f.Sequence] {
			s.Errorf("frame %d was not acknowledged, or is there twice", f.Sequence)
		}
		found[f.Sequence] = true
		for _, tensor := range f.Tensors {
			data, err := store.Bytes(s.Context(), *tensor.Claim)
			if err != nil || !bytes.Equal(data, claimchecktest.Content(uint64(f.Sequence), tensorSize)) {
				s.Errorf("the tensor of frame %d does not come back: %v", f.Sequence, err)
			}
			claims = append(claims, *tensor.Claim)
		}
	}
	tensors := 0
	for sequence, withTensor := range s.acknowledged {
		if !found[sequence] {
			s.Errorf("frame %d was acknowledged and is not on the log", sequence)
		}
		if withTensor {
			tensors++
		}
	}
	if len(claims) != tensors || tensors == 0 {
		s.Fatalf("%d claims on the log, of %d frames with a tensor", len(claims), tensors)
	}
	s.Logf("%d frames and %d claims on the log, all acknowledged and verified", len(found), len(claims))
	return claims
}

// spoil changes the bytes of a stored tensor. Its reader must notice.
func (s *site) spoil(claim oona.TensorClaim) {
	s.Helper()
	file, err := os.OpenFile(filepath.Join(s.store.dir, bucket, filepath.FromSlash(claim.Key)), os.O_RDWR, 0)
	if err != nil {
		s.Fatal(err)
	}
	defer file.Close()
	original := make([]byte, 1)
	if _, err := file.ReadAt(original, tensorSize/2); err != nil {
		s.Fatal(err)
	}
	if _, err := file.WriteAt([]byte{original[0] ^ 1}, tensorSize/2); err != nil {
		s.Fatal(err)
	}
	store, err := claimcheck.Open(s.config)
	if err != nil {
		s.Fatal(err)
	}
	if data, err := store.Bytes(s.Context(), claim); data != nil || !errors.Is(err, claimcheck.ErrMismatch) {
		s.Errorf("of wrong bytes come %d, error %v", len(data), err)
	}
}

// mountSmall mounts a file system of 8 MiB on the directory, if that is allowed.
func mountSmall(t *testing.T, dir string) bool {
	t.Helper()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m") != nil {
		return false
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return true
}

// fill writes until the file system is full.
func fill(t *testing.T, name string) {
	t.Helper()
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the store is not full: %v", err)
	}
}
