package proof

import (
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/strvals"
)

// The notes say what somebody who installs the chart has to know or to do.
func TestNotes(t *testing.T) {
	for _, c := range []struct {
		file, set string
		want      []string
	}{
		{"minimal", "", []string{"prefix kasmina,", "group oona-aggregate."}},
		{"production", "", []string{"prefix team-a,", "group team-a-oona-aggregate."}},
		{"production", "topics.mode=none", []string{
			"oona topics apply ", "--brokers=kafka-0.kafka:9092,", "--prefix=team-a", "--group=team-a-oona-aggregate", "--partitions=24",
			"--max-message-bytes=4000000", "--window-length=30s", "--max-accumulators=1048576"}},
		{"scram", "topics.mode=none", []string{"--bus-tls ", "--bus-sasl=scram-sha-512", "files"}},
		{"no-create", "", []string{"first records"}},
		{"routes", "", []string{"https://oona.example.com/v1/frames", "  oona.example.com/v1/frames"}},
		{"minimal", "kafka.sasl.mechanism=plain,kafka.sasl.username=u,kafka.sasl.existingSecret=s", []string{"password"}},
		{"minimal", "ingest.access.existingSecret=a", []string{"test.tokenSecret"}},
	} {
		values := readValues(t, c.file)
		if err := strvals.ParseInto(c.set, values); err != nil {
			t.Fatal(err)
		}
		texts, err := renderTexts(loadChart(t), "r", values)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if text := texts["oona/templates/NOTES.txt"]; !strings.Contains(text, want) {
				t.Errorf("%s with %q: the notes do not have %q:\n%s", c.file, c.set, want, text)
			}
		}
	}
}
