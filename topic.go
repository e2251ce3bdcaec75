package oona

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// DefaultPrefix is the prefix of all topic names unless configured otherwise.
const DefaultPrefix = "kasmina"

// Topics are the names of the topics under one prefix.
type Topics struct {
	SeedMetrics      string // frames
	LayerHealth      string // rollups, partition p from partition p of SeedMetrics
	LayerPerformance string // the same
	Late             string // frames whose window had closed
	Quarantine       string // frames whose time or identity cannot be right
	Overflow         string // frames beyond a limit
	SeedMetricsDead  string // dead letters of SeedMetrics
	SeedRaw          string // frames from trainers that publish to the bus
	SeedRawDead      string // dead letters of SeedRaw
	Settings         string // shared by workers: catalogues, incarnations, configurations
	Redrives         string // which records of side topics were redriven or discarded
	Germinated       string // events of seeds that have germinated
	Grafted          string // the same, grafted
	Fossilized       string // the same, fossilized
	Culled           string // the same, culled
	Transitioned     string // all other events of seeds
	RunEnded         string // ends of runs
}

// NewTopics returns the names under prefix. The prefix must be an id without ':',
// which Kafka does not allow, and without '_', which Kafka's metrics do not
// distinguish from '.'.
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

// topicRow describes a topic independently of the prefix.
type topicRow struct {
	name   func(*Topics) *string
	suffix string // the part of the name after the prefix
	set    topicSet
	schema Schema
	key    keyRule
	// form is the form of the topic's addresses after the prefix, with
	// {layer} and {seed} as parts. It is empty if the topic has no addresses.
	form       string
	partitions partitionRule
	maxBytes   int // limit of a record; 0 for the bus's default
	appendTime bool
	compacted  bool
	forever    bool
}

// topicSet is a set of topics that are needed together.
type topicSet int

const (
	telemetrySet topicSet = iota // needed always
	rawSet                       // needed if ingest reads frames from the bus
	settingsSet                  // for settings that workers share
	redriveSet                   // for the command that sends records of side topics again
	eventSet                     // for events of seeds and of runs
)

// Schema is the kind of the records of a topic.
type Schema int

// The schemas of topics.
const (
	FrameSchema   Schema = iota // frames, and Oona's own records
	RollupSchema                // rollups
	RawSchema                   // frames in each format that ingest accepts
	DeadSchema                  // dead letters, in any format
	SettingSchema               // settings, by key
	RedriveSchema               // whether a record of a side topic was redriven or discarded
	EventSchema                 // events of seeds
	RunEndSchema                // ends of runs
)

// Schema returns the kind of the records of a topic.
func (t Topics) Schema(topic string) (s Schema) {
	for _, row := range topicTable {
		if *row.name(&t) == topic {
			s = row.schema
		}
	}
	return s
}

// keyRule is the kind of the keys of a topic's records.
type keyRule int

const (
	runLayerKey  keyRule = iota // Key: the run and the layer
	unchangedKey                // the key that the diverted record had
	clientKey                   // any key that the trainer chooses
	settingKey                  // the name of a setting
	placeKey                    // where the diverted record was
	seedKey                     // SeedKey: the run, the layer and the seed
	runKey                      // the run
)

// partitionRule says how many partitions a topic has.
type partitionRule int

const (
	anyCount            partitionRule = iota // the requested number
	likeSeedMetrics                          // the number of SeedMetrics
	sideCount                                // one, if a number is requested
	madeLikeSeedMetrics                      // the number of SeedMetrics when it is created; any number is right
)

// topicTable lists all topics, in the order in which they are reported.
var topicTable = []topicRow{
	{name: func(t *Topics) *string { return &t.SeedMetrics }, suffix: seedMetricsSuffix, form: "telemetry/seed/{layer}/{seed}/metrics", appendTime: true},
	{name: func(t *Topics) *string { return &t.LayerHealth }, suffix: ".telemetry.layer.health", schema: RollupSchema, form: "telemetry/layer/{layer}/health", partitions: likeSeedMetrics, maxBytes: MaxRollupBytes},
	{name: func(t *Topics) *string { return &t.LayerPerformance }, suffix: ".telemetry.layer.performance", schema: RollupSchema, form: "telemetry/layer/{layer}/performance", partitions: likeSeedMetrics, maxBytes: MaxRollupBytes},
	{name: func(t *Topics) *string { return &t.Late }, suffix: ".telemetry.seed.late", partitions: sideCount, maxBytes: MaxSideBytes, key: unchangedKey},
	{name: func(t *Topics) *string { return &t.Quarantine }, suffix: ".telemetry.seed.quarantine", partitions: sideCount, maxBytes: MaxSideBytes, key: unchangedKey},
	{name: func(t *Topics) *string { return &t.Overflow }, suffix: ".telemetry.seed.overflow", partitions: sideCount, maxBytes: MaxSideBytes, key: unchangedKey},
	{name: func(t *Topics) *string { return &t.SeedMetricsDead }, suffix: seedMetricsSuffix + ".dead", schema: DeadSchema, partitions: sideCount, maxBytes: MaxSideBytes, key: unchangedKey},
	{name: func(t *Topics) *string { return &t.SeedRaw }, suffix: ".telemetry.seed.raw", set: rawSet, schema: RawSchema, key: clientKey},
	{name: func(t *Topics) *string { return &t.SeedRawDead }, suffix: ".telemetry.seed.raw.dead", set: rawSet, schema: DeadSchema, partitions: sideCount, maxBytes: MaxSideBytes, key: unchangedKey},
	{name: func(t *Topics) *string { return &t.Settings }, suffix: ".oona.settings", set: settingsSet, schema: SettingSchema, compacted: true, key: settingKey},
	{name: func(t *Topics) *string { return &t.Redrives }, suffix: ".oona.redrives", set: redriveSet, schema: RedriveSchema, maxBytes: MaxSideBytes, compacted: true, key: placeKey},
	{name: func(t *Topics) *string { return &t.Germinated }, suffix: "." + kindGerminated, set: eventSet, schema: EventSchema, form: "events/seed/germinated", partitions: madeLikeSeedMetrics, forever: true, key: seedKey},
	{name: func(t *Topics) *string { return &t.Grafted }, suffix: "." + kindGrafted, set: eventSet, schema: EventSchema, form: "events/seed/grafted", partitions: madeLikeSeedMetrics, forever: true, key: seedKey},
	{name: func(t *Topics) *string { return &t.Fossilized }, suffix: "." + kindFossilized, set: eventSet, schema: EventSchema, form: "events/seed/fossilized", partitions: madeLikeSeedMetrics, forever: true, key: seedKey},
	{name: func(t *Topics) *string { return &t.Culled }, suffix: "." + kindCulled, set: eventSet, schema: EventSchema, form: "events/seed/culled", partitions: madeLikeSeedMetrics, forever: true, key: seedKey},
	{name: func(t *Topics) *string { return &t.Transitioned }, suffix: "." + kindTransitioned, set: eventSet, schema: EventSchema, form: "events/seed/transitioned", partitions: madeLikeSeedMetrics, forever: true, key: seedKey},
	{name: func(t *Topics) *string { return &t.RunEnded }, suffix: "." + kindRunEnded, set: eventSet, schema: RunEndSchema, form: "events/run/ended", partitions: madeLikeSeedMetrics, forever: true, key: runKey},
}

const seedMetricsSuffix = ".telemetry.seed.metrics"

// Rollup returns the topic of the rollups of a group.
func (t Topics) Rollup(g Group) string {
	if g == Health {
		return t.LayerHealth
	}
	return t.LayerPerformance
}

// Event returns the topic of an event.
func (t Topics) Event(e *SeedEvent) string { return t.prefix() + "." + e.kind() }

// Events returns the topics of events of seeds.
func (t Topics) Events() []string {
	return []string{t.Germinated, t.Grafted, t.Fossilized, t.Culled, t.Transitioned}
}

// AllEvents returns the topics of events of seeds and of runs.
func (t Topics) AllEvents() []string { return append(t.Events(), t.RunEnded) }

// TopicSpec is the required configuration of a topic.
type TopicSpec struct {
	Name       string
	Partitions int32 // 0 for any number
	// AnyPartitions says that Partitions is for creating the topic only: if it exists, any
	// number is right.
	AnyPartitions bool
	// PartitionsOf is another topic that must have the same number of
	// partitions, or "".
	PartitionsOf string
	// MaxMessageBytes is the topic's limit for a record; 0 for the bus's default.
	MaxMessageBytes int
	// LeastMessageBytes is the least that this limit may be; 0 for any limit.
	LeastMessageBytes int
	// AppendTime says that the bus must set the times of the records, as time is
	// taken from the log.
	AppendTime bool
	// Compacted says that the topic keeps the last record of each key. Other topics
	// must not be compacted.
	Compacted bool
	// Forever says that a topic is created without a limit of age and of size. Operators
	// may set limits later.
	Forever bool
}

// MaxRollupBytes is the limit of rollup topics for a record. It is more than the
// largest rollup: 64 metrics whose samples fill all buckets have 8 MiB.
const MaxRollupBytes = 16 << 20

// DefaultRecordBytes is ingest's limit for a record of frames unless configured
// otherwise. It is below Kafka's default for max.message.bytes, 1,048,588.
const DefaultRecordBytes = 1_000_000

// MaxSideBytes is the limit of side topics for a record: a record of the input
// topic and the headers with the reason.
const MaxSideBytes = 2 << 20

// Specs returns the topics that must exist. SeedMetrics and the rollup topics
// have the given number of partitions, side topics have one. If partitions is 0,
// any number is right.
func (t Topics) Specs(partitions int32) []TopicSpec { return t.specs(telemetrySet, partitions) }

// RawSpecs returns the topics that ingest needs to read frames from the bus. Any
// number of partitions is right, as ingest writes all frames of a layer to the
// same partition of SeedMetrics.
func (t Topics) RawSpecs(partitions int32) []TopicSpec { return t.specs(rawSet, partitions) }

// SettingsSpec returns the specification of the settings topic. Workers need the
// topic only if a log names settings that are not built in.
func (t Topics) SettingsSpec() TopicSpec { return t.specs(settingsSet, 1)[0] }

// RedrivesSpec returns the specification of the topic of redrives. No worker needs it.
func (t Topics) RedrivesSpec() TopicSpec { return t.specs(redriveSet, 1)[0] }

// EventSpecs returns the topics of events, of seeds and of runs. They are created with the number of partitions of
// SeedMetrics, and nothing depends on that: the run decides about the partition, and the
// sequence about the order. Ingest refuses events if the topics do not exist.
func (t Topics) EventSpecs(partitions int32) []TopicSpec { return t.specs(eventSet, partitions) }

// Sides returns the topics that have records which were not folded, in the order in
// which they are reported. Those of the raw topic need not exist.
func (t Topics) Sides() (names []string) {
	for _, row := range topicTable {
		if row.key == unchangedKey {
			names = append(names, *row.name(&t))
		}
	}
	return names
}

func (t Topics) specs(set topicSet, partitions int32) (specs []TopicSpec) {
	for _, row := range topicTable {
		if row.set == set {
			specs = append(specs, row.spec(t, partitions))
		}
	}
	return specs
}

func (r topicRow) spec(t Topics, partitions int32) TopicSpec {
	spec := TopicSpec{Name: *r.name(&t), Partitions: partitions, MaxMessageBytes: r.maxBytes, AppendTime: r.appendTime, Compacted: r.compacted, Forever: r.forever}
	switch r.partitions {
	case likeSeedMetrics:
		spec.PartitionsOf = t.SeedMetrics
	case sideCount:
		spec.Partitions = min(1, partitions)
	case madeLikeSeedMetrics:
		spec.AnyPartitions = true
	}
	return spec
}

// Address selects records of the bus: all of a topic, or those of a layer or of a
// seed.
type Address struct {
	Topic string
	Layer LayerID // empty for all layers, which is '+' in the text form
	Seed  SeedID  // AnySeed for all seeds, which is '+' in the text form
}

// AnySeed is the Seed of an Address that selects all seeds.
const AnySeed SeedID = -1

func (t Topics) names() (names []string) {
	for _, row := range topicTable {
		names = append(names, *row.name(&t))
	}
	return names
}

// Around returns the topics of the prefix that the name of a topic begins with, which may
// be another one than that of t. It returns t if the name is not that of a topic of Oona.
func (t Topics) Around(topic string) Topics {
	for _, row := range topicTable {
		prefix, found := strings.CutSuffix(topic, row.suffix)
		if !found {
			continue
		}
		if other, err := NewTopics(prefix); err == nil {
			return other
		}
	}
	return t
}

func (t Topics) prefix() string { return strings.TrimSuffix(t.SeedMetrics, seedMetricsSuffix) }

// ParseAddress parses the text form of an address, for example
// kasmina/telemetry/layer/enc.3/health, in which '+' stands for any layer or
// seed. It also accepts the name of a topic.
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

// parse parses the parts of an address after the prefix. It reports whether they
// have the form of r's addresses.
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

// Address returns the text form of a, the inverse of ParseAddress.
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
