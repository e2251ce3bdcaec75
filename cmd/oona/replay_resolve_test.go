package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/morphogenetic/oona/replay/tensors"
)

// A replay with --resolve writes the tensors beside its files, of frames from the bus and
// from an archive. One that the store has lost is in the index, without a file.
func TestReplayResolve(t *testing.T) {
	t.Parallel()
	s := newStoring(t)
	there, gone := s.tensor("abcdef", 0), s.tensor("lost", 0)
	s.publish(s.topics.SeedMetrics, s.frame(there, gone))
	if err := os.Remove(s.file(gone)); err != nil {
		t.Fatal(err)
	}
	archived := t.TempDir()
	replay := func(want int, args ...string) {
		t.Helper()
		if status, out, messages := run(t, append([]string{"replay", "--group="}, args...)...); status != want {
			t.Fatalf("%v: status %d, want %d: %s%s", args, status, want, out, messages)
		}
	}
	replay(0, s.topics.SeedMetrics, "--archive", archived, "--brokers", s.brokers)
	store := s.flags[2:]
	for _, source := range [][]string{{s.topics.SeedMetrics, "--brokers", s.brokers}, {archived}} {
		root := t.TempDir()
		for _, form := range []string{"--parquet", "--parquet", "--avro", "--avro"} { // twice into the same directory
			dir := filepath.Join(root, form)
			replay(0, append(append(source, form, dir, "--resolve"), store...)...)
			var entries []tensors.Entry
			text, err := os.ReadFile(filepath.Join(dir, tensors.Folder, s.topics.SeedMetrics+"-00000.jsonl"))
			for decoder := json.NewDecoder(bytes.NewReader(text)); err == nil && decoder.More(); {
				var e tensors.Entry
				err = decoder.Decode(&e)
				entries = append(entries, e)
			}
			if err != nil || len(entries) != 2 || entries[0].SHA256 != hex.EncodeToString(there.SHA256[:]) || entries[0].File == "" || entries[1].File != "" || entries[1].Lost == "" {
				t.Fatalf("%v: the index is %+v: %v", source, entries, err)
			}
			content, err := os.ReadFile(filepath.Join(dir, tensors.Folder, entries[0].File))
			if err != nil || !bytes.HasSuffix(content, []byte("\nabcdef")) {
				t.Errorf("%v: the file is %q: %v", source, content, err)
			}
		}
	}
	plain := filepath.Join(t.TempDir(), "parquet")
	replay(0, archived, "--parquet", plain)
	if _, err := os.Stat(filepath.Join(plain, tensors.Folder)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without --resolve: %v", err)
	}
	replay(exitUsage, archived, "--lines", "--resolve")
	replay(exitUsage, archived, "--aggregate", "--parquet", filepath.Join(t.TempDir(), "rollups"), "--resolve")
	replay(exitFailed, archived, "--parquet", filepath.Join(t.TempDir(), "parquet"), "--resolve") // without a store
}
