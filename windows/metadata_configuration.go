package windows

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/morphogenetic/oona"
)

// Flags that say what a commit has for an epoch besides its configuration.
const (
	epochHasFrom = 1 << iota
	epochHasRecord
	epochIsExpired
)

// appendConfigEpochs appends the number of epochs. For each it appends flags, the
// instants and offsets that they announce, and the fields of its configuration that
// differ from the epoch before. The first one is compared with beforeAll.
func appendConfigEpochs(b []byte, s *snapshot) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.configEpochs)))
	before := beforeAll(s.version())
	for _, c := range s.configEpochs {
		flags := bit(c.from != unset)*epochHasFrom | bit(c.record != unknown)*epochHasRecord | bit(c.expired != never)*epochIsExpired
		b = binary.AppendUvarint(b, flags)
		if flags&epochHasFrom != 0 {
			b = appendFrom(b, s.maxAppendedAt, c.from)
		}
		if flags&epochHasRecord != 0 {
			b = binary.AppendUvarint(b, uint64(c.record-s.safe.Offset))
		}
		if flags&epochIsExpired != 0 {
			b = binary.AppendUvarint(b, uint64(c.expired-s.safe.Offset))
		}
		b = appendConfig(b, &before, &c.cfg)
		before = c.cfg
	}
	return b
}

// appendConfig appends a bit for each field, set where c differs from before,
// and the fields that do.
func appendConfig(b []byte, before, c *Config) []byte {
	changed := uint64(0)
	var values []byte
	old := configFields(before)
	for i, v := range configFields(c) {
		if v != old[i] {
			changed |= 1 << i
			values = binary.AppendUvarint(values, v)
		}
	}
	switch c.Catalogue {
	case before.Catalogue:
	case oona.CatalogueHash{}:
		changed |= configNamesNone
	default:
		changed |= configNamesCatalogue
		values = append(values, c.Catalogue[:]...)
	}
	return append(binary.AppendUvarint(b, changed), values...)
}

// The bits of a catalogue that differs, from version 3 on. The first says that
// the configuration names no catalogue.
const (
	configNamesNone      = 1 << configFieldCount
	configNamesCatalogue = 1 << (configFieldCount + 1)
)

// beforeAll returns the configuration with which the first configuration of a commit is compared.
// Its reducer is 1, because a text without a reducer was written when there was only that one. From
// version 3 on, it has the hash of the first catalogue, which most logs name.
func beforeAll(version byte) Config {
	c := Config{Reducer: 1}
	if version >= metadataVersionLog {
		c.Catalogue = oona.FirstCatalogue
	}
	return c
}

// configFields returns the fields in the order of version 1, durations in
// microseconds.
func configFields(c *Config) [configFieldCount]uint64 {
	var fields [configFieldCount]uint64
	for i, d := range configDurations(c) {
		fields[i] = uint64(d.Microseconds())
	}
	for i, n := range configNumbers(c) {
		fields[configDurationCount+i] = uint64(*n)
	}
	fields[15], fields[16] = uint64(c.Generation), uint64(c.Reducer)
	return fields
}

const (
	configDurationCount = 7
	configFieldCount    = 17
)

func configDurations(c *Config) [configDurationCount]*time.Duration {
	return [...]*time.Duration{&c.Length, &c.OutOfOrderness, &c.AllowedLateness, &c.TickInterval, &c.IdleHorizon, &c.MaxSkew, &c.MaxDelay}
}

func configNumbers(c *Config) [8]*int {
	return [...]*int{&c.MaxTimelines, &c.MaxAccumulators, &c.MaxTimelineAccumulators, &c.MaxLayers, &c.MaxMetrics, &c.MaxSeeds, &c.FrontierSlots, &c.WorstSeeds}
}

// configEpochs reads what appendConfigEpochs wrote.
func (r *metadataReader) configEpochs(s *snapshot, version byte) {
	n := r.number(MaxMetadata)
	if n == 0 {
		r.fail(errors.New("there is no configuration"))
	}
	cfg := beforeAll(version)
	within := uint64(s.processedTo - s.safe.Offset)
	for ; n > 0 && r.err == nil; n-- {
		flags := r.number(epochHasFrom | epochHasRecord | epochIsExpired)
		from, record, expired := unset, unknown, never
		if flags&epochHasFrom != 0 {
			from = r.after(s.maxAppendedAt)
		}
		if flags&epochHasRecord != 0 {
			record = s.safe.Offset + int64(r.number(within))
		}
		if flags&epochIsExpired != 0 {
			expired = s.safe.Offset + int64(r.number(within))
		}
		r.config(&cfg, version)
		if r.err == nil {
			r.err = cmp.Or(checkReducer(cfg.Reducer), cfg.Validate())
		}
		if r.err != nil {
			return
		}
		if len(s.configEpochs) == 0 && record != unknown {
			r.fail(errors.New("there is no configuration at the offset"))
		}
		c := newConfigEpoch(cfg, from, record)
		c.expired = expired
		if len(s.configEpochs) > 0 && !c.follows(s.configEpochs.last()) || expired != never && n == 1 {
			r.fail(errors.New("configurations are not in order"))
		}
		s.configEpochs = append(s.configEpochs, c)
	}
}

// follows reports whether c may come after b.
func (c *configEpoch) follows(b *configEpoch) bool {
	return c.from > b.from && c.record >= b.record && c.expired >= b.expired
}

// config reads the fields that appendConfig has written, and sets them in c.
func (r *metadataReader) config(c *Config, version byte) {
	fields := configFields(c)
	known := uint64(1)<<len(fields) - 1
	if version >= metadataVersionLog {
		known |= configNamesNone | configNamesCatalogue
	}
	changed := r.number(known)
	for i := range fields {
		if changed>>i&1 == 0 {
			continue
		}
		if i < configDurationCount {
			fields[i] = r.number(math.MaxInt64 / 1000)
		} else {
			fields[i] = r.number(math.MaxInt32)
		}
	}
	for i, d := range configDurations(c) {
		*d = time.Duration(fields[i]) * time.Microsecond
	}
	for i, n := range configNumbers(c) {
		*n = int(fields[configDurationCount+i])
	}
	c.Generation, c.Reducer = int32(fields[15]), int32(fields[16])
	if changed&configNamesNone != 0 {
		c.Catalogue = oona.CatalogueHash{}
	}
	if changed&configNamesCatalogue != 0 {
		binary.BigEndian.PutUint64(c.Catalogue[:], r.hash())
	}
}
