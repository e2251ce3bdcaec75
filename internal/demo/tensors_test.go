package demo

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/internal/watch"
	"github.com/morphogenetic/oona/schemas/avro"
)

// The large tensors of the recording are stored and read back. Stored bytes that
// have changed are corrected when the same tensor is sent again.
func TestTensorsAreReadBack(t *testing.T) {
	t.Parallel()
	cfg := testConfig(nil)
	cfg.Data = t.TempDir()
	want := TensorCounts{Inline: 124, Claimed: 28, Verified: 28}
	run := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), hopeless)
		defer cancel()
		r, err := Run(ctx, cfg, watch.Screen{Out: io.Discard}, discard())
		if err != nil {
			t.Fatal(err)
		}
		if r.EventsRecorded != 832 || r.EventsRead != 832 || r.EventsSent != 832 || r.EventsAcknowledged != 832 || r.EventsAccepted != 833 || r.EventsOnBus != 833 || r.RunsEnded != 1 || r.RunsEndedRead != 1 || r.EventFaults != 0 {
			t.Errorf("events: %+v", r)
		}
		if r.Tensors != want || r.TensorsSent != 152 || r.ClaimsAccepted != 28 || !r.Agree {
			t.Errorf("tensors are %+v, want %+v; sent %d, claims accepted %d; %+v", r.Tensors, want, r.TensorsSent, r.ClaimsAccepted, r.Checks)
		}
	}
	run()
	spoilOne(t, filepath.Join(cfg.Data, "tensors"))
	run()
}

// A tensor that has changed in the store since its frame was accepted counts as
// claimed but not as verified, so the counts disagree.
func TestAuditNoticesChangedBytes(t *testing.T) {
	dir := t.TempDir()
	store, err := claimcheck.OpenDirectory(dir, "tensors", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	claim, _, err := store.CheckIn(t.Context(), strings.NewReader("a tensor"))
	if err != nil {
		t.Fatal(err)
	}
	f := &oona.Frame{
		Run: "run", Layer: "enc.0", Producer: "trainer", ObservedAt: oona.MicrosOf(time.Now()),
		Seeds: []oona.SeedID{1}, States: []oona.State{oona.Training},
		Tensors: []oona.Tensor{{Name: "weights", Seed: 1, DType: "uint8", Shape: []int64{8}, Claim: &claim}},
	}
	a := &audit{services: &services{tensors: store, logger: discard()}}
	look := func(verified int64) {
		t.Helper()
		a.look(t.Context(), message.NewMessage("", avro.AppendFrame(nil, f)))
		if got := a.verified.Load(); got != verified {
			t.Errorf("%d of %d claims are verified, want %d", got, a.claimed.Load(), verified)
		}
	}
	look(1)
	spoilOne(t, dir)
	look(1)
	if got := a.claimed.Load(); got != 2 {
		t.Errorf("%d claims were seen, want 2", got)
	}
}

// spoilOne changes a bit of some tensor.
func spoilOne(t *testing.T, dir string) {
	t.Helper()
	var files []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, name)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("%d tensors are kept, error %v", len(files), err)
	}
	name := filepath.Join(dir, filepath.FromSlash(files[0]))
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	content[0] ^= 1
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// If the port of a server is in use, the demo prints where it listens instead.
func TestTakenPortOfTensorsIsSaid(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for preferred, want := range map[int]string{port: fmt.Sprintf("Port %d is in use: the S3 server listens on http://127.0.0.1:", port), 0: ""} {
		var said strings.Builder
		s := &services{out: &said, logger: discard()}
		if err := s.openTensors(t.Context(), t.TempDir(), preferred); err != nil {
			t.Fatal(err)
		}
		for _, closer := range s.closers {
			if err := closer(); err != nil {
				t.Error(err)
			}
		}
		if got := said.String(); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("with port %d it says %q", preferred, got)
		}
	}
}
