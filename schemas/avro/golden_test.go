package avro

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
)

var update = flag.Bool("update", false, "write the golden payloads that are missing; those that exist are never touched")

// golden is what the payloads hold, whatever the version: a reader of today
// finds in an old payload all fields that the version had.
var golden = map[string]struct {
	data []byte
	// read decodes a payload and encodes it in the latest version.
	read func(data []byte) ([]byte, error)
}{
	seedMetrics:         {AppendFrame(nil, sampleFrame()), decodeFrame},
	layerHealth:         {AppendRollup(nil, sampleRollup(oona.Health)), decodeRollup},
	layerPerformance:    {AppendRollup(nil, sampleRollup(oona.Performance)), decodeRollup},
	tick:                {AppendTick(nil, oona.Tick{Worker: "aggregate-0", WrittenAt: 1_700_000_001_000_000}), decodeTick},
	windowConfiguration: {AppendConfiguration(nil, sampleConfiguration()), decodeConfiguration},
	seedEvent:           {AppendEvent(nil, sampleEvent()), decodeEvent},
}

// TestGolden reads the payload of every published version. What was on the
// wire once is never written again: a payload belongs to its version for good.
func TestGolden(t *testing.T) {
	for _, s := range Schemas() {
		name := s.Name[strings.LastIndexByte(s.Name, '.')+1:]
		file := filepath.Join("testdata", "golden", fmt.Sprintf("%s.v%d.bin", name, s.Version))
		t.Run(filepath.Base(file), func(t *testing.T) {
			g := golden[s.Name]
			latest := s.Version == published.latest[s.Name].Version
			data, err := os.ReadFile(file)
			if errors.Is(err, fs.ErrNotExist) && *update && latest {
				data, err = g.data, writeNew(file, g.data)
			}
			if err != nil {
				t.Fatalf("%v; for a new version, run the test with -update", err)
			}
			if latest && !bytes.Equal(data, g.data) {
				t.Errorf("the encoder no longer writes the bytes of %s", file)
			}
			again, err := g.read(data)
			if err != nil {
				t.Fatal(err)
			}
			if latest && !bytes.Equal(again, data) {
				t.Errorf("read and written again it is %x\nwant %x", again, data)
			}
		})
	}
}

// writeNew refuses a file that exists.
func writeNew(file string, data []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func TestGoldenIsNotOverwritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "Tick.v1.bin")
	if err := writeNew(file, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := writeNew(file, []byte("second")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("writing a payload that exists: %v", err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "first" {
		t.Errorf("it holds %q, %v", data, err)
	}
}
