package oona

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestNewTopics(t *testing.T) {
	got, err := NewTopics(DefaultPrefix)
	want := Topics{
		SeedMetrics:      "kasmina.telemetry.seed.metrics",
		LayerHealth:      "kasmina.telemetry.layer.health",
		LayerPerformance: "kasmina.telemetry.layer.performance",
		Late:             "kasmina.telemetry.seed.late",
		Quarantine:       "kasmina.telemetry.seed.quarantine",
		Overflow:         "kasmina.telemetry.seed.overflow",
		SeedMetricsDead:  "kasmina.telemetry.seed.metrics.dead",
		SeedRaw:          "kasmina.telemetry.seed.raw",
		SeedRawDead:      "kasmina.telemetry.seed.raw.dead",
		Settings:         "kasmina.oona.settings",
		Redrives:         "kasmina.oona.redrives",
		Germinated:       "kasmina.events.seed.germinated",
		Grafted:          "kasmina.events.seed.grafted",
		Fossilized:       "kasmina.events.seed.fossilized",
		Culled:           "kasmina.events.seed.culled",
		Transitioned:     "kasmina.events.seed.transitioned",
		RunEnded:         "kasmina.events.run.ended",
	}
	if got != want || err != nil {
		t.Errorf("NewTopics(%q) = %+v, %v\nwant %+v", DefaultPrefix, got, err, want)
	}
}

func TestNewTopicsRefuses(t *testing.T) {
	for _, prefix := range []string{"", "my_team", "team:a", "a/b"} {
		topics, err := NewTopics(prefix)
		if wrong, ok := errors.AsType[*FieldError](err); !ok || wrong.Field != "topic prefix" || topics != (Topics{}) {
			t.Errorf("NewTopics(%q) = %+v, %v", prefix, topics, err)
		}
	}
}

// TestTopicSpecs: what Kafka demands of a name, what the rollups demand of
// partitions, and that no topic is missing.
func TestTopicSpecs(t *testing.T) {
	topics, err := NewTopics(strings.Repeat("p", MaxIDLength))
	if err != nil {
		t.Fatal(err)
	}
	legal := regexp.MustCompile(`^[A-Za-z0-9.-]{1,249}$`)
	specs := map[string]TopicSpec{}
	for _, s := range append(slices.Concat(topics.Specs(12), topics.RawSpecs(12), topics.EventSpecs(12)), topics.SettingsSpec(), topics.RedrivesSpec()) {
		if !legal.MatchString(s.Name) {
			t.Errorf("%s is no legal name of a Kafka topic", s.Name)
		}
		if _, twice := specs[s.Name]; twice {
			t.Errorf("%s is listed twice", s.Name)
		}
		specs[s.Name] = s
	}
	for _, want := range []TopicSpec{
		{Name: topics.SeedMetrics, Partitions: 12, AppendTime: true},
		{Name: topics.LayerHealth, Partitions: 12, PartitionsOf: topics.SeedMetrics, MaxMessageBytes: 16 << 20},
		{Name: topics.LayerPerformance, Partitions: 12, PartitionsOf: topics.SeedMetrics, MaxMessageBytes: 16 << 20},
		{Name: topics.Late, Partitions: 1, MaxMessageBytes: 2 << 20},
		{Name: topics.Quarantine, Partitions: 1, MaxMessageBytes: 2 << 20},
		{Name: topics.Overflow, Partitions: 1, MaxMessageBytes: 2 << 20},
		{Name: topics.SeedMetricsDead, Partitions: 1, MaxMessageBytes: 2 << 20},
		{Name: topics.SeedRaw, Partitions: 12},
		{Name: topics.SeedRawDead, Partitions: 1, MaxMessageBytes: 2 << 20},
		{Name: topics.Settings, Partitions: 1, Compacted: true},
		{Name: topics.Redrives, Partitions: 1, MaxMessageBytes: 2 << 20, Compacted: true},
		{Name: topics.Germinated, Partitions: 12, AnyPartitions: true, Forever: true},
		{Name: topics.Grafted, Partitions: 12, AnyPartitions: true, Forever: true},
		{Name: topics.Fossilized, Partitions: 12, AnyPartitions: true, Forever: true},
		{Name: topics.Culled, Partitions: 12, AnyPartitions: true, Forever: true},
		{Name: topics.Transitioned, Partitions: 12, AnyPartitions: true, Forever: true},
		{Name: topics.RunEnded, Partitions: 12, AnyPartitions: true, Forever: true},
	} {
		if got := specs[want.Name]; got != want {
			t.Errorf("spec %+v, want %+v", got, want)
		}
		delete(specs, want.Name)
	}
	for name := range specs {
		t.Errorf("%s is listed and not expected", name)
	}
}

func TestRollupTopic(t *testing.T) {
	topics, err := NewTopics(DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if got := topics.Rollup(Health); got != topics.LayerHealth {
		t.Errorf("health rollups go to %s", got)
	}
	if got := topics.Rollup(Performance); got != topics.LayerPerformance {
		t.Errorf("performance rollups go to %s", got)
	}
}

func TestAddresses(t *testing.T) {
	topics, err := NewTopics("my.net")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]Address{
		"my.net/telemetry/layer/enc.3/health":     {topics.LayerHealth, "enc.3", AnySeed},
		"my.net/telemetry/layer/+/performance":    {topics.LayerPerformance, "", AnySeed},
		"my.net/telemetry/seed/enc.3/17/metrics":  {topics.SeedMetrics, "enc.3", 17},
		"my.net/telemetry/seed/+/0/metrics":       {topics.SeedMetrics, "", 0},
		"my.net/telemetry/seed/health/+/metrics":  {topics.SeedMetrics, "health", AnySeed},
		"my.net/events/seed/germinated":           {topics.Germinated, "", AnySeed},
		"my.net/events/seed/grafted":              {topics.Grafted, "", AnySeed},
		"my.net/events/seed/fossilized":           {topics.Fossilized, "", AnySeed},
		"my.net/events/seed/culled":               {topics.Culled, "", AnySeed},
		"my.net/events/seed/transitioned":         {topics.Transitioned, "", AnySeed},
		"my.net.telemetry.seed.raw.dead":          {topics.SeedRawDead, "", AnySeed},
		"my.net.telemetry.seed.late":              {topics.Late, "", AnySeed},
		"my.net/telemetry/layer/telemetry/health": {topics.LayerHealth, "telemetry", AnySeed},
	} {
		got, err := topics.ParseAddress(text)
		if got != want || err != nil {
			t.Errorf("ParseAddress(%q) = %+v, %v; want %+v", text, got, err, want)
		}
		if back := topics.Address(got); back != text {
			t.Errorf("Address(%+v) = %q, want %q", got, back, text)
		}
	}
	if got, err := topics.ParseAddress(topics.LayerHealth); err != nil || topics.Address(got) != "my.net/telemetry/layer/+/health" {
		t.Errorf("the topic %s is the address %q (%v)", topics.LayerHealth, topics.Address(got), err)
	}
}

func TestAddressesRefused(t *testing.T) {
	topics, err := NewTopics(DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"",
		"other/telemetry/layer/enc.3/health",
		"kasmina.telemetry.seed.other",
		"kasmina/telemetry/layer/enc.3/state",
		"kasmina/telemetry/layer/enc.3",
		"kasmina/telemetry/layer/e 3/health",
		"kasmina/telemetry/layer//health",
		"kasmina/telemetry/seed/enc.3/-1/metrics",
		"kasmina/telemetry/seed/enc.3/9999999999/metrics",
	} {
		got, err := topics.ParseAddress(text)
		if wrong, ok := errors.AsType[*FieldError](err); !ok || wrong.Field != "address" || got != (Address{}) {
			t.Errorf("ParseAddress(%q) = %+v, %v", text, got, err)
		}
	}
}

// TestTopicSets: which topics each set has, in order, and that none of them
// demands a number of partitions where none is asked for.
func TestTopicSets(t *testing.T) {
	topics, err := NewTopics(DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		specs func(int32) []TopicSpec
		want  []string
	}{
		{"Specs", topics.Specs, []string{
			topics.SeedMetrics, topics.LayerHealth, topics.LayerPerformance,
			topics.Late, topics.Quarantine, topics.Overflow, topics.SeedMetricsDead,
		}},
		{"RawSpecs", topics.RawSpecs, []string{topics.SeedRaw, topics.SeedRawDead}},
		{"EventSpecs", topics.EventSpecs, topics.AllEvents()},
	} {
		var names []string
		for _, s := range tt.specs(0) {
			names = append(names, s.Name)
			if s.Partitions != 0 {
				t.Errorf("%s(0): %s has %d partitions, want any number", tt.name, s.Name, s.Partitions)
			}
		}
		if !slices.Equal(names, tt.want) {
			t.Errorf("%s(0) = %v, want %v", tt.name, names, tt.want)
		}
	}
}

func TestSides(t *testing.T) {
	topics, err := NewTopics(DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{topics.Late, topics.Quarantine, topics.Overflow, topics.SeedMetricsDead, topics.SeedRawDead}
	if got := topics.Sides(); !slices.Equal(got, want) {
		t.Errorf("side topics %q, want %q", got, want)
	}
}

func TestTopicsAround(t *testing.T) {
	mine, err := NewTopics("mine")
	if err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]string{
		"other.telemetry.layer.health":      "other",
		"a.b.telemetry.seed.metrics.dead":   "a.b",
		"mine.telemetry.seed.raw":           "mine",
		"experiments":                       "mine",
		".telemetry.seed.metrics":           "mine",
		"not_valid.telemetry.layer.health":  "mine",
		"other.telemetry.layer.health.copy": "mine",
	} {
		if got := mine.Around(topic).prefix(); got != want {
			t.Errorf("%s: prefix %s, want %s", topic, got, want)
		}
	}
}
