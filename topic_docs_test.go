package oona

import (
	"os"
	"strings"
	"testing"
)

// The table of topics in docs/protocol.md agrees with the code.
func TestDocumentedTopics(t *testing.T) {
	page, err := os.ReadFile("docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	topics, err := NewTopics(DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string][]string)
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if name, found := strings.CutPrefix(strings.TrimSpace(cells[min(1, len(cells)-1)]), "`"+DefaultPrefix+"."); found && len(cells) == 6 {
			documented[DefaultPrefix+"."+strings.TrimSuffix(name, "`")] = cells
		}
	}
	if len(documented) != len(topicTable) {
		t.Errorf("%d topics are documented, and there are %d", len(documented), len(topicTable))
	}
	partitions := map[partitionRule]string{anyCount: "as you choose", likeSeedMetrics: "as many as", sideCount: "1", madeLikeSeedMetrics: "at first as many as"}
	holds := map[Schema]string{FrameSchema: "frames", RollupSchema: "Layer", RawSchema: "frames of trainers", DeadSchema: "records", SettingSchema: "share", RedriveSchema: "sent again or discarded", EventSchema: "events", RunEndSchema: "ends of runs"}
	keys := map[keyRule]string{runLayerKey: "run, layer", unchangedKey: "unchanged", clientKey: "the trainer's", settingKey: "see below", placeKey: "place of origin", seedKey: "run, layer, seed", runKey: "run"}
	for _, row := range topicTable {
		name := *row.name(&topics)
		cells := documented[name]
		if cells == nil {
			t.Errorf("%s is not documented", name)
			continue
		}
		last := cells[4]
		want := partitions[row.partitions]
		if row.set == settingsSet || row.set == redriveSet {
			want = "1"
		}
		if !strings.HasPrefix(strings.TrimSpace(last), want) || strings.Contains(last, "compacted") != row.compacted || strings.Contains(last, "LogAppendTime") != row.appendTime || strings.Contains(last, "for ever") != row.forever || !strings.Contains(cells[2], holds[row.schema]) || strings.TrimSpace(cells[3]) != keys[row.key] {
			t.Errorf("%s is documented as %q", name, cells)
		}
	}
}
