package parquet_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/parquet"
)

// verified returns what Verify finds, by the places of the faults.
func verified(t *testing.T, dir string, log replay.Log) (replay.Verified, []string) {
	t.Helper()
	v, err := parquet.Verify(t.Context(), dir, log)
	if err != nil {
		t.Fatal(err)
	}
	var faults []string
	for _, f := range v.Faults {
		faults = append(faults, f.What)
	}
	return v, faults
}

// Verify counts the records of the log again, and finds files that are damaged, missing, or not in the
// manifest.
func TestVerify(t *testing.T) {
	log, _ := randomLog(t, 6, 500)
	dir := filepath.Join(t.TempDir(), "out")
	options := smallOptions()
	options.Selection.Seeds = []oona.SeedID{1, 2, 3, 101}
	output := &parquet.Output{Dir: dir, Options: options}
	if err := extract(t, log, output); err != nil {
		t.Fatal(err)
	}
	if v, faults := verified(t, dir, log); len(faults) > 0 || v.Compared == 0 || v.Compared != v.Records || v.Files < 4 {
		t.Fatalf("verified %+v", v)
	}
	files := output.Manifest().Topics[0].Partitions[0].Files
	path := func(f manifest.File) string { return filepath.Join(dir, f.Name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path(files[0]))
	must(err)
	data[len(data)/2] ^= 1
	must(os.WriteFile(path(files[0]), data, 0o666))
	must(os.Remove(path(files[1])))
	must(os.WriteFile(path(files[2])+".copy.parquet", nil, 0o666))
	for offset := range 5 { // now the log has other records
		log.partitions[0][offset].Metadata.Set(oona.HeaderRecord, oona.TickRecord)
	}
	_, faults := verified(t, dir, log)
	for _, want := range []string{files[0].Name + ": has another hash", files[1].Name, files[2].Name + ".copy.parquet", "in the range"} {
		found := 0
		for _, f := range faults {
			if strings.Contains(f, want) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%d faults have %q: %q", found, want, faults)
		}
	}
	if len(faults) != 4 {
		t.Errorf("the faults are %q", faults)
	}
	log.partitions[1] = log.partitions[1][:5]
	if _, faults := verified(t, dir, log); len(faults) != 5 {
		t.Errorf("with a log that has lost its end, the faults are %q", faults)
	}
	if _, err := parquet.Verify(t.Context(), t.TempDir(), nil); !errors.Is(err, manifest.ErrNone) {
		t.Errorf("%v, want ErrNone", err)
	}
}
