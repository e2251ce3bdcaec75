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

	"github.com/twmb/avro"

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

// TestGoldenWithEveryReader reads each payload as every other version of its
// record would: a reader that is older than the writer is one too.
func TestGoldenWithEveryReader(t *testing.T) {
	pairs := 0
	for _, written := range published.byFingerprint {
		name := written.Name[strings.LastIndexByte(written.Name, '.')+1:]
		data, err := os.ReadFile(filepath.Join("testdata", "golden", fmt.Sprintf("%s.v%d.bin", name, written.Version)))
		if err != nil {
			t.Fatal(err)
		}
		for _, reader := range published.byFingerprint {
			if reader.Name != written.Name {
				continue
			}
			resolved, err := avro.Resolve(written.parsed, reader.parsed)
			if err != nil {
				t.Fatal(err)
			}
			var fields map[string]any
			rest, err := resolved.Decode(data[framingSize:], &fields)
			if err != nil || len(rest) > 0 || len(fields) != len(reader.parsed.Root().Fields) {
				t.Errorf("%s version %d read by version %d: %d fields, %d bytes follow, %v", name, written.Version, reader.Version, len(fields), len(rest), err)
			}
			pairs++
		}
	}
	if pairs <= len(published.byFingerprint) {
		t.Errorf("%d pairs, so that no record has two versions", pairs)
	}
}

// What the first version of a configuration says is what it always said.
func TestConfigurationOfTheFirstVersion(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "golden", "WindowConfiguration.v1.bin"))
	if err != nil {
		t.Fatal(err)
	}
	want := sampleConfiguration()
	want.Reducer = 1
	if got, err := DecodeConfiguration(data); err != nil || got != want {
		t.Errorf("it is %+v, %v; want %+v", got, err, want)
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
