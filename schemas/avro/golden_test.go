package avro

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/avro"

	"github.com/morphogenetic/oona"
)

var update = flag.Bool("update", false, "write the golden payloads that are missing; those that exist are never touched")

// golden is what the payloads hold: a reader of today finds in an old payload
// all fields that the version had.
var golden = map[string]struct {
	// data are the payloads of the versions that are still written.
	data map[int][]byte
	// read decodes a payload and encodes it again.
	read func(data []byte) ([]byte, error)
}{
	seedMetrics:         {map[int][]byte{1: AppendFrame(nil, sampleFrame())}, decodeFrame},
	layerHealth:         {map[int][]byte{1: AppendRollup(nil, sampleRollup(oona.Health)), 2: AppendRollup(nil, sampleSecond(oona.Health))}, decodeRollup},
	layerPerformance:    {map[int][]byte{1: AppendRollup(nil, sampleRollup(oona.Performance)), 2: AppendRollup(nil, sampleSecond(oona.Performance))}, decodeRollup},
	tick:                {map[int][]byte{1: AppendTick(nil, oona.Tick{Worker: "aggregate-0", WrittenAt: 1_700_000_001_000_000})}, decodeTick},
	windowConfiguration: {map[int][]byte{3: AppendConfiguration(nil, sampleConfiguration())}, decodeConfiguration},
	incarnationStart:    {map[int][]byte{1: AppendIncarnation(nil, sampleIncarnation())}, decodeIncarnation},
	seedEvent:           {map[int][]byte{2: AppendEvent(nil, sampleEvent())}, decodeEvent},
	runEnd:              {map[int][]byte{1: AppendRunEnd(nil, sampleRunEnd())}, decodeRunEnd},
	archiveRecord:       {map[int][]byte{1: archivedByGoavro()}, decodeArchived},
}

// TestGolden reads the payload of every published version. What was on the
// wire once is never written again: a payload belongs to its version for good.
func TestGolden(t *testing.T) {
	for _, s := range Schemas() {
		name := s.Name[strings.LastIndexByte(s.Name, '.')+1:]
		file := filepath.Join("testdata", "golden", fmt.Sprintf("%s.v%d.bin", name, s.Version))
		t.Run(filepath.Base(file), func(t *testing.T) {
			g := golden[s.Name]
			want, written := g.data[s.Version]
			data, err := os.ReadFile(file)
			if errors.Is(err, fs.ErrNotExist) && *update && written {
				data, err = want, writeNew(file, want)
			}
			if err != nil {
				t.Fatalf("%v; for a new version, run the test with -update", err)
			}
			if written && !bytes.Equal(data, want) {
				t.Errorf("the encoder no longer writes the bytes of %s", file)
			}
			again, err := g.read(data)
			if err != nil {
				t.Fatal(err)
			}
			if written && !bytes.Equal(again, data) {
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
	want := sampleSecondConfiguration()
	want.Reducer = 1
	if got, err := DecodeConfiguration(data); err != nil || got != want {
		t.Errorf("it is %+v, %v; want %+v", got, err, want)
	}
}

// The second version says no more than it did. What was written with a reducer
// above 1 would be of version 3 today.
func TestConfigurationOfTheSecondVersion(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "golden", "WindowConfiguration.v2.bin"))
	if err != nil {
		t.Fatal(err)
	}
	want := sampleSecondConfiguration()
	if got, err := DecodeConfiguration(data); err != nil || got != want {
		t.Errorf("it is %+v, %v; want %+v", got, err, want)
	}
	want.Reducer = 1
	data[len(data)-1] = 2 // the reducer: 1 in zigzag
	if got := AppendConfiguration(nil, want); !bytes.Equal(got, data) {
		t.Errorf("written is %x\nwant %x", got, data)
	}
}

func TestEventOfTheFirstVersion(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "golden", "SeedEvent.v1.bin"))
	if err != nil {
		t.Fatal(err)
	}
	from := sampleEvent()
	want := oona.SeedEvent{
		Run: from.Run, Layer: from.Layer, Seed: from.Seed, Sequence: from.Sequence, At: from.At, Step: from.Step,
		From: from.From, To: from.To, Reason: from.Reason, Evidence: from.Evidence,
	}
	var got oona.SeedEvent
	if _, err := DecodeEvent(data, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("it is %+v, %v; want %+v", got, err, want)
	}
}

// The oldest version that is sufficient is written, so that older readers still work.
func TestTheVersionFollowsTheContent(t *testing.T) {
	for name, c := range map[string]struct {
		data []byte
		want int
	}{
		"rollup of reducer 1":        {AppendRollup(nil, &oona.Rollup{Reducer: 1}), 1},
		"rollup of no reducer":       {AppendRollup(nil, &oona.Rollup{Group: oona.Performance}), 1},
		"rollup of reducer 2":        {AppendRollup(nil, &oona.Rollup{Reducer: 2}), 2},
		"rollup of a catalogue":      {AppendRollup(nil, &oona.Rollup{Reducer: 1, Catalogue: oona.CatalogueHash{7: 1}}), 2},
		"rollup of an incarnation":   {AppendRollup(nil, &oona.Rollup{Group: oona.Performance, Trigger: oona.Trigger{Incarnation: 1}}), 2},
		"configuration of reducer 1": {AppendConfiguration(nil, oona.WindowConfiguration{Reducer: 1}), 2},
		"of reducer 2":               {AppendConfiguration(nil, oona.WindowConfiguration{Reducer: 2}), 3},
		"of a catalogue":             {AppendConfiguration(nil, oona.WindowConfiguration{Catalogue: oona.CatalogueHash{7: 1}}), 3},
		"of a kind":                  {AppendConfiguration(nil, oona.WindowConfiguration{Kind: oona.Session}), 3},
		"of a hop":                   {AppendConfiguration(nil, oona.WindowConfiguration{Hop: 1}), 3},
		"of a gap":                   {AppendConfiguration(nil, oona.WindowConfiguration{Gap: 1}), 3},
		"event":                      {AppendEvent(nil, &oona.SeedEvent{}), 2},
	} {
		if got := written(t, c.data).Version; got != c.want {
			t.Errorf("%s: version %d, want %d", name, got, c.want)
		}
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

// An event of any version begins with whose it is, so that this can be read without the rest.
func TestEventSeed(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/SeedEvent.v*.bin")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var e oona.SeedEvent
		if _, err := DecodeEvent(data, &e); err != nil {
			t.Fatal(err)
		}
		run, layer, seed, err := EventSeed(data)
		if err != nil || run != e.Run || layer != e.Layer || seed != e.Seed {
			t.Errorf("%s: %s, %s, %d (%v); the event is %+v", file, run, layer, seed, err, e)
		}
		for cut := range framingSize + 2 {
			if _, _, _, err := EventSeed(data[:cut]); err == nil {
				t.Errorf("%s: %d bytes are an event", file, cut)
			}
		}
	}
	if _, _, _, err := EventSeed(AppendTick(nil, oona.Tick{Worker: "w"})); !errors.Is(err, ErrFingerprint) {
		t.Errorf("a tick: %v", err)
	}
}
