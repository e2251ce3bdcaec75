package oona

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// DefaultPrefix begins every topic name unless configured otherwise.
const DefaultPrefix = "kasmina"

// Topics are the names of Kafka topics under one prefix.
type Topics struct {
	SeedMetrics      string // frames
	LayerHealth      string // rollups, partition p from partition p of SeedMetrics
	LayerPerformance string // the same
	Late             string // frames whose window had closed
	Quarantine       string // frames whose time or identity cannot be right
	Overflow         string // frames beyond a cap
	SeedMetricsDead  string // records of SeedMetrics that are not frames
	SeedRaw          string // frames of trainers that speak Kafka, for ingest
	SeedRawDead      string // records of SeedRaw that ingest would have refused
	Settings         string // what workers share besides records: catalogues, incarnations, configurations
}

// NewTopics returns the names under prefix, which must be an id without '_':
// a topic name mixes no '.' with '_', as Kafka's metrics confuse them.
func NewTopics(prefix string) (Topics, error) {
	if err := CheckID("topic prefix", prefix); err != nil {
		return Topics{}, err
	}
	if strings.ContainsAny(prefix, "_:") {
		return Topics{}, &FieldError{"topic prefix", fmt.Sprintf("%q has '_' or ':'; use letters, digits, '.' and '-'", prefix)}
	}
	var t Topics
	for _, row := range topicTable {
		*row.name(&t) = prefix + row.suffix
	}
	return t, nil
}

// topicRow is what is fixed of a topic, whatever the prefix.
type topicRow struct {
	name   func(*Topics) *string
	suffix string // of the name, after the prefix
	set    topicSet
	// form is how addresses of the topic are written after the prefix; {layer}
	// and {seed} are a part each. Empty: it has no addresses.
	form       string
	partitions partitionRule
	maxBytes   int // of a record; 0: as the broker has it
	appendTime bool
	compacted  bool
}

// topicSet is who needs a topic.
type topicSet int

const (
	telemetrySet topicSet = iota // every deployment
	rawSet                       // an ingest that takes frames from Kafka
	settingsSet                  // workers that share settings
)

// partitionRule is how many partitions a topic has.
type partitionRule int

const (
	anyCount        partitionRule = iota // as many as are asked for
	likeSeedMetrics                      // as many as SeedMetrics
	sideCount                            // one, if a number is asked for
)

// topicTable lists all topics, in the order in which they are reported.
var topicTable = []topicRow{
	{name: func(t *Topics) *string { return &t.SeedMetrics }, suffix: seedMetricsSuffix, form: "telemetry/seed/{layer}/{seed}/metrics", appendTime: true},
	{name: func(t *Topics) *string { return &t.LayerHealth }, suffix: ".telemetry.layer.health", form: "telemetry/layer/{layer}/health", partitions: likeSeedMetrics, maxBytes: MaxRollupBytes},
	{name: func(t *Topics) *string { return &t.LayerPerformance }, suffix: ".telemetry.layer.performance", form: "telemetry/layer/{layer}/performance", partitions: likeSeedMetrics, maxBytes: MaxRollupBytes},
	{name: func(t *Topics) *string { return &t.Late }, suffix: ".telemetry.seed.late", partitions: sideCount, maxBytes: MaxSideBytes},
	{name: func(t *Topics) *string { return &t.Quarantine }, suffix: ".telemetry.seed.quarantine", partitions: sideCount, maxBytes: MaxSideBytes},
	{name: func(t *Topics) *string { return &t.Overflow }, suffix: ".telemetry.seed.overflow", partitions: sideCount, maxBytes: MaxSideBytes},
	{name: func(t *Topics) *string { return &t.SeedMetricsDead }, suffix: seedMetricsSuffix + ".dead", partitions: sideCount, maxBytes: MaxSideBytes},
	{name: func(t *Topics) *string { return &t.SeedRaw }, suffix: ".telemetry.seed.raw", set: rawSet},
	{name: func(t *Topics) *string { return &t.SeedRawDead }, suffix: ".telemetry.seed.raw.dead", set: rawSet, partitions: sideCount, maxBytes: MaxSideBytes},
	{name: func(t *Topics) *string { return &t.Settings }, suffix: ".oona.settings", set: settingsSet, compacted: true},
}

const seedMetricsSuffix = ".telemetry.seed.metrics"

// Rollup returns the topic of the rollups of a group.
func (t Topics) Rollup(g Group) string {
	if g == Health {
		return t.LayerHealth
	}
	return t.LayerPerformance
}

// TopicSpec is what a topic must be like.
type TopicSpec struct {
	Name       string
	Partitions int32 // 0: any number
	// PartitionsOf is a topic that has as many; empty: none.
	PartitionsOf string
	// MaxMessageBytes is what the topic takes of a record; 0: as the broker
	// has it.
	MaxMessageBytes int
	// LeastMessageBytes is what the topic takes of a record at least, however
	// much more it takes; 0: any.
	LeastMessageBytes int
	// AppendTime: the broker stamps records (message.timestamp.type =
	// LogAppendTime). It must hold where time is taken from the log.
	AppendTime bool
	// Compacted: the topic keeps the last record of each key for good
	// (cleanup.policy = compact). Others must not be compacted.
	Compacted bool
}

// MaxRollupBytes is more than any rollup has: 64 metrics whose samples fill
// every bucket of both signs come to 8 MiB.
const MaxRollupBytes = 16 << 20

// DefaultRecordBytes is what ingest takes a record of frames for at most, unless
// it is told otherwise: less than Kafka's own max.message.bytes of 1,048,588.
const DefaultRecordBytes = 1_000_000

// MaxSideBytes is what side topics take: a record of the input and why it is
// there.
const MaxSideBytes = 2 << 20

// Specs lists the topics that there must be. Those whose partitions must
// correspond have the same number, partitions; the side topics have one. With 0
// partitions, any number will do.
func (t Topics) Specs(partitions int32) []TopicSpec { return t.specs(telemetrySet, partitions) }

// RawSpecs lists the topics of an ingest that takes frames from Kafka too. Any
// number of partitions will do, as layers are put together later.
func (t Topics) RawSpecs(partitions int32) []TopicSpec { return t.specs(rawSet, partitions) }

// SettingsSpec is what the settings topic must be like. Workers go on without
// it where no log names what only that topic holds.
func (t Topics) SettingsSpec() TopicSpec { return t.specs(settingsSet, 1)[0] }

// specs returns what the topics of a set must be like.
func (t Topics) specs(set topicSet, partitions int32) (specs []TopicSpec) {
	for _, row := range topicTable {
		if row.set == set {
			specs = append(specs, row.spec(t, partitions))
		}
	}
	return specs
}

func (r topicRow) spec(t Topics, partitions int32) TopicSpec {
	spec := TopicSpec{Name: *r.name(&t), Partitions: partitions, MaxMessageBytes: r.maxBytes, AppendTime: r.appendTime, Compacted: r.compacted}
	switch r.partitions {
	case likeSeedMetrics:
		spec.PartitionsOf = t.SeedMetrics
	case sideCount:
		spec.Partitions = min(1, partitions)
	}
	return spec
}

// Address is where the design of the bus has records: a topic and, within it, a
// layer and a seed of it.
type Address struct {
	Topic string
	Layer LayerID // empty: of every layer, '+' in an address
	Seed  SeedID  // AnySeed: of every seed
}

// AnySeed is the Seed of an Address of every seed.
const AnySeed SeedID = -1

// names lists the topics, which is all that an Address may be of.
func (t Topics) names() (names []string) {
	for _, row := range topicTable {
		names = append(names, *row.name(&t))
	}
	return names
}

// prefix is what the names of t begin with.
func (t Topics) prefix() string { return strings.TrimSuffix(t.SeedMetrics, seedMetricsSuffix) }

// ParseAddress takes an address of the design, such as
// kasmina/telemetry/layer/enc.3/health, in which '+' stands for any layer or
// seed, or the name of a topic.
func (t Topics) ParseAddress(text string) (Address, error) {
	wrong := func(format string, args ...any) (Address, error) {
		return Address{}, &FieldError{"address", fmt.Sprintf("%q "+format, append([]any{text}, args...)...)}
	}
	if slices.Contains(t.names(), text) {
		return Address{Topic: text, Seed: AnySeed}, nil
	}
	parts := strings.Split(text, "/")
	if parts[0] != t.prefix() {
		return wrong("is neither an address under %s/ nor one of the topics %s", t.prefix(), strings.Join(t.names(), ", "))
	}
	var known []string
	for _, row := range topicTable {
		if row.form == "" {
			continue
		}
		known = append(known, t.prefix()+"/"+row.form)
		if a, fits, err := row.parse(parts[1:]); fits {
			if err != nil {
				return wrong("is wrong: %v", err)
			}
			a.Topic = *row.name(&t)
			return a, nil
		}
	}
	return wrong("is not an address of the bus; those are %s, where + stands for any {layer} or {seed}", strings.Join(known, ", "))
}

// parse reads the parts of an address after its prefix, if they are of this form.
func (r topicRow) parse(parts []string) (a Address, fits bool, err error) {
	form := strings.Split(r.form, "/")
	if len(parts) != len(form) {
		return a, false, nil
	}
	a.Seed = AnySeed
	for i, part := range parts {
		switch {
		case form[i] == part:
		case form[i] == "{layer}" && part == "+", form[i] == "{seed}" && part == "+":
		case form[i] == "{layer}":
			a.Layer, err = LayerID(part), CheckID("layer", part)
		case form[i] == "{seed}":
			var n uint64
			if n, err = strconv.ParseUint(part, 10, 31); err != nil {
				err = &FieldError{"seed", fmt.Sprintf("is %q, not the number of a seed", part)}
			}
			a.Seed = SeedID(n)
		default:
			return a, false, nil
		}
		if err != nil {
			return a, true, err
		}
	}
	return a, true, nil
}

// Address is the inverse of ParseAddress.
func (t Topics) Address(a Address) string {
	layer, seed := "+", "+"
	if a.Layer != "" {
		layer = string(a.Layer)
	}
	if a.Seed != AnySeed {
		seed = strconv.Itoa(int(a.Seed))
	}
	for _, row := range topicTable {
		if row.form != "" && *row.name(&t) == a.Topic {
			return t.prefix() + "/" + strings.NewReplacer("{layer}", layer, "{seed}", seed).Replace(row.form)
		}
	}
	return a.Topic
}
