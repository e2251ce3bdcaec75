package avro

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestFastavro has Python's fastavro, which is not ours in any part, read what
// we write and write what we read (testdata/fastavro_check.py).
func TestFastavro(t *testing.T) {
	python := requireFastavro(t)
	dir := t.TempDir()
	cases := samples(t)
	for i, s := range cases {
		v := written(t, s.data)
		writeFile(t, filepath.Join(dir, schemaName(v)+".avsc"), []byte(v.Text))
		values, err := json.Marshal(tagged(s.native))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, caseFile(t, dir, s, i, "json"), values)
		writeFile(t, caseFile(t, dir, s, i, "bin"), s.data)
	}
	out, err := exec.CommandContext(t.Context(), python, filepath.Join("testdata", "fastavro_check.py"), dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := bytes.Count(out, []byte("checked ")); n != len(cases) {
		t.Errorf("the script checked %d of %d cases", n, len(cases))
	}
	for i, s := range cases {
		theirs := readFile(t, caseFile(t, dir, s, i, "fastavro"))
		again, err := s.decode(theirs)
		if err != nil {
			t.Fatalf("%s by fastavro: %v", s.name, err)
		}
		if !bytes.Equal(again, s.data) {
			t.Errorf("%s by fastavro is read as %x\nwant %x", s.name, again, s.data)
		}
	}
	for _, name := range []string{"union", "frames", "deflated", "events"} {
		checkRecording(t, readFile(t, filepath.Join(dir, name+".avro")), cases, name != "events", name == "union" || name == "events")
	}
	var frames [][]byte
	for _, s := range cases {
		if s.record == seedMetrics {
			frames = append(frames, s.data)
		}
	}
	for _, name := range []string{"frames", "deflated"} {
		got, err := decodeContainer(t, new(FrameDecoder), readFile(t, filepath.Join(dir, name+".avro")), roomy)
		if err != nil || !slices.EqualFunc(got, frames, bytes.Equal) {
			t.Errorf("%s by fastavro: %d of %d frames are the same, %v", name, len(got), len(frames), err)
		}
	}
}

// checkRecording expects the frames among the cases, then the events.
func checkRecording(t *testing.T, file []byte, cases []sample, frames, events bool) {
	t.Helper()
	r, err := NewRecordingReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range cases {
		if s.record == seedMetrics && !frames || s.record == seedEvent && !events || s.record != seedMetrics && s.record != seedEvent {
			continue
		}
		entry, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		if s.record == seedMetrics {
			got = AppendFrame(nil, entry.Frame)
		} else {
			got = AppendEvent(nil, entry.Event)
		}
		if !bytes.Equal(got, s.data) {
			t.Errorf("recorded by fastavro, %s is %x\nwant %x", s.name, got, s.data)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// requireFastavro returns the Python that has fastavro, or skips the test
// where it may be skipped.
func requireFastavro(t *testing.T) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err == nil {
		err = exec.CommandContext(t.Context(), python, "-c", "import fastavro").Run()
	}
	if err == nil {
		return python
	}
	if os.Getenv("OONA_REQUIRE_FASTAVRO") == "1" {
		t.Fatalf("OONA_REQUIRE_FASTAVRO=1, but python3 with fastavro does not run: %v", err)
	}
	t.Skipf("SKIPPED, the codec was NOT cross-checked with fastavro: python3 with fastavro does not run (%v); pip install fastavro", err)
	return ""
}

func caseFile(t *testing.T, dir string, s sample, i int, ext string) string {
	t.Helper()
	return filepath.Join(dir, fmt.Sprintf("%s.%02d.%s", schemaName(written(t, s.data)), i, ext))
}

func schemaName(v *version) string { return fmt.Sprintf("%s.v%d", v.Name, v.Version) }

func writeFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// tagged gives values that JSON cannot hold the form that the script expects.
func tagged(v any) any {
	switch v := v.(type) {
	case []byte:
		return map[string]any{"$bytes": hex.EncodeToString(v)}
	case float32:
		return map[string]any{"$float": hex.EncodeToString(encodeFloatsPortable(nil, []float32{v}))}
	case float64:
		return map[string]any{"$double": hex.EncodeToString(appendDouble(nil, v))}
	case []any:
		return list(v, tagged)
	case map[string]any:
		out := map[string]any{}
		for name, item := range v {
			out[name] = tagged(item)
		}
		return out
	}
	return v
}
