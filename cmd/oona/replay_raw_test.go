package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/morphogenetic/oona/replay/manifest"
)

// The raw topic has bodies as trainers send them: several frames in one record, of which
// each is selected by itself.
func TestReplayRaw(t *testing.T) {
	w := newWatched(t)
	frame := func(layer string, sequence int) string {
		return fmt.Sprintf(`{"run_id":"a","layer_id":%q,"producer_id":"p","producer_epoch":1,"sequence":%d,"observed_at":1790000000000000,"step":1,"seed_ids":[0,1],"states":["TRAINING","DORMANT"],"metrics":[{"name":"loss","values":[0.5,null]}]}`, layer, sequence)
	}
	body := "[" + frame("enc.0", 0) + "," + frame("enc.1", 1) + "]"
	w.publish(w.topics.SeedRaw, []byte(body))
	w.publish(w.topics.SeedRaw, []byte(frame("enc.1", 2)))
	w.publish(w.topics.SeedRaw, []byte("no body"))

	if all, watched := w.lines(w.topics.SeedRaw), w.watch(w.topics.SeedRaw, "4", "--json"); strings.Join(all, "") != strings.Join(watched, "\n")+"\n" {
		t.Errorf("%s\nand watch prints\n%s", all, watched)
	}
	lines := w.lines(w.topics.SeedRaw, "--layer=enc.1", "--seed=1")
	if len(lines) != 2 || !strings.Contains(lines[0], `"enc.1"`) || !strings.Contains(lines[0], `"seed_ids":[1]`) {
		t.Errorf("of a layer and a seed: %s", lines)
	}

	want := manifest.Counts{Records: 3, Readings: 6, Rows: 4, Skipped: 2, Unread: 1}
	for _, form := range []string{"--avro", "--parquet"} {
		dir := filepath.Join(t.TempDir(), "files")
		status, out, messages := w.replayOf(form, dir, "--layer=enc.1", "--json", w.topics.SeedRaw)
		var m manifest.Manifest
		if err := json.Unmarshal([]byte(out), &m); err != nil || status != 0 {
			t.Fatalf("%s: status %d, %v, %s", form, status, err, messages)
		}
		if got := m.Topics[0].Partitions[0].Counts; *got != want {
			t.Errorf("%s: %+v, want %+v", form, *got, want)
		}
		if status, out, messages := w.replayOf("verify", dir); status != 0 || !strings.Contains(out, "0 faults") {
			t.Errorf("%s: verify: status %d, %s, %s", form, status, out, messages)
		}
	}

	if status, _, messages := w.replayOf("--to-topic", w.topics.Quarantine, "--yes", w.topics.SeedRaw); status != 0 {
		t.Fatal(messages)
	}
	if sent := recordsOf(t, w, w.topics.Quarantine); len(sent) != 3 || string(sent[0].Payload) != body {
		t.Errorf("all: %d records, the first is %s", len(sent), sent[0].Payload)
	}
	if status, _, messages := w.replayOf("--to-topic", w.topics.Late, "--yes", "--layer=enc.1", w.topics.SeedRaw); status != 0 {
		t.Fatal(messages)
	}
	if sent := recordsOf(t, w, w.topics.Late); len(sent) != 2 || sent[0].Payload[0] != 0xc3 {
		t.Errorf("of a layer: %d records", len(sent))
	}
}
