package aggregate

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/pipeline/partition"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// ErrUpgrade is returned for a configuration that this version cannot read. Without it, the
// aggregator would fold frames into the wrong windows.
var ErrUpgrade = errors.New("a configuration in the log is of a later version of Oona; upgrade this aggregator")

// RecordAt names a record of the seed-metrics topic.
type RecordAt struct {
	Partition int32
	Offset    int64
}

// UnmarshalText parses PARTITION:OFFSET.
func (r *RecordAt) UnmarshalText(text []byte) error {
	partition, offset, found := strings.Cut(string(text), ":")
	p, err1 := strconv.ParseUint(partition, 10, 31)
	o, err2 := strconv.ParseUint(offset, 10, 63)
	if !found || err1 != nil || err2 != nil {
		return fmt.Errorf("%q is not PARTITION:OFFSET; use the value in the aggregator's error, such as 3:1234", text)
	}
	*r = RecordAt{int32(p), int64(o)}
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (r RecordAt) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r RecordAt) String() string { return fmt.Sprintf("%d:%d", r.Partition, r.Offset) }

// configuration decodes a record that changes how the partition is folded. A record
// of a later version is an error, or a dead letter if the stage was told to skip it.
func (p *machine) configuration(kind string, payload []byte, record *windows.Record) (verdict, rejection, error) {
	v, side, err := p.decodeConfiguration(kind, payload, record)
	if err == nil && record.Configuration != nil {
		err = p.prepare(record.Configuration)
	}
	if errors.Is(err, partition.ErrRetry) || errors.Is(err, windows.ErrCatalogue) {
		return 0, rejection{}, err
	}
	at := RecordAt{p.about.Partition, record.Offset}
	switch {
	case err == nil:
		return v, side, nil
	case slices.Contains(p.folder.cfg.Skip, at):
		return verdictDead, rejection{p.folder.cfg.Topics.SeedMetricsDead, reasonUndecodable, err.Error()}, nil
	}
	return 0, rejection{}, fmt.Errorf("%w. If no later version was ever used here, the record is damaged: skip it with --skip-record=%s at all aggregators", err, at)
}

// prepare lets the engine look for the catalogue of a configuration. The error wraps
// windows.ErrCatalogue if there is no such catalogue. Any other error wraps partition.ErrRetry.
func (p *machine) prepare(c *windows.Configuration) error {
	err := p.engine.Prepare(c)
	if err == nil || errors.Is(err, windows.ErrCatalogue) {
		return err
	}
	return fmt.Errorf("%w: %w", partition.ErrRetry, err)
}

// decodeConfiguration sets the configuration or the incarnation of a record. If it
// returns a rejection, the record only advances the log clock. The error wraps ErrUpgrade.
func (p *machine) decodeConfiguration(kind string, payload []byte, record *windows.Record) (verdict, rejection, error) {
	var c windows.Configuration
	var start oona.IncarnationStart
	var err error
	if kind == oona.IncarnationRecord {
		start, err = DecodeIncarnation(payload)
	} else {
		c, err = DecodeConfiguration(kind, payload)
	}
	dead := p.folder.cfg.Topics.SeedMetricsDead
	_, unsound := errors.AsType[unsoundError](err)
	switch {
	case OfLaterVersion(err):
		return 0, rejection{}, fmt.Errorf("%w: %w", ErrUpgrade, err)
	case unsound:
		return verdictDead, rejection{dead, reasonInvalid, err.Error()}, nil
	case err != nil:
		return verdictDead, rejection{dead, reasonUndecodable, err.Error()}, nil
	}
	if kind == oona.IncarnationRecord {
		record.Incarnation = &start
	} else {
		record.Configuration = &c
	}
	return verdictOwn, rejection{}, nil
}

// DecodeIncarnation decodes an incarnation record. Its errors are like the errors of
// DecodeConfiguration.
func DecodeIncarnation(payload []byte) (oona.IncarnationStart, error) {
	start, err := avro.DecodeIncarnation(payload)
	if err != nil {
		return oona.IncarnationStart{}, err
	}
	if err := start.Validate(); err != nil {
		return oona.IncarnationStart{}, unsoundError{err}
	}
	return start, nil
}

// DecodeConfiguration decodes a configuration record of a kind. If OfLaterVersion
// returns true for its error, an aggregator ends at the record; otherwise the record
// is a dead letter.
func DecodeConfiguration(kind string, payload []byte) (windows.Configuration, error) {
	if kind != oona.ConfigurationRecord {
		return windows.Configuration{}, fmt.Errorf("%w is %s, and this one knows %s", errKind, kind, oona.ConfigurationRecord)
	}
	said, err := avro.DecodeConfiguration(payload)
	if err != nil {
		return windows.Configuration{}, err
	}
	c, err := windows.ConfigurationOf(&said)
	if err != nil {
		return windows.Configuration{}, unsoundError{err}
	}
	return c, nil
}

// OfLaterVersion reports whether an error of DecodeConfiguration means that a later
// version of Oona has written the record.
func OfLaterVersion(err error) bool {
	return errors.Is(err, errKind) || errors.Is(err, avro.ErrUnpublished) || errors.Is(err, windows.ErrReducer) || errors.Is(err, windows.ErrWindowKind)
}

var errKind = errors.New("its kind")

// unsoundError is the error of a configuration that was decoded and is not valid.
type unsoundError struct{ error }

func (e unsoundError) Unwrap() error { return e.error }

// noteIncarnation logs the outcome of an incarnation record. It logs each one, because they are rare.
func (p *machine) noteIncarnation(o windows.Outcome, at bus.Position) {
	if o.Reason == windows.ReasonBegun {
		p.logger.Info("an incarnation of the log begins", "incarnation", int64(p.engine.Incarnation()), "detail", o.Detail, "offset", at.Offset)
		return
	}
	p.logger.Warn("an incarnation record in the log changes nothing", "reason", o.Reason, "detail", o.Detail, "offset", at.Offset)
}

// noteConfiguration logs the outcome of a configuration. It logs each one, because they are rare.
func (p *machine) noteConfiguration(o windows.Outcome, at bus.Position) {
	if o.Reason == windows.ReasonConfigured {
		p.logger.Info("the log configures the windows", "reason", o.Reason, "detail", o.Detail, "offset", at.Offset)
		p.compareSettings("the partition uses the windows of its log, which differ from this worker's settings")
		return
	}
	p.logger.Warn("a configuration in the log changes nothing", "reason", o.Reason, "detail", o.Detail, "offset", at.Offset)
}

// compareSettings logs a warning if the partition's windows differ from the worker's
// settings.
func (p *machine) compareSettings(warning string) {
	if !p.folder.compares {
		return
	}
	held := p.engine.Config()
	if differ := otherSettings(held, p.folder.cfg.Windows); len(differ) > 0 {
		p.logger.Warn(warning, "generation", held.Generation, "differ", strings.Join(differ, ", "))
	}
}

// otherSettings lists the settings that differ, with both values. Generation, reducer
// and catalogue have no flags and are not compared.
func otherSettings(held, own windows.Config) (all []string) {
	a, b := reflect.ValueOf(held), reflect.ValueOf(own)
	for i := range a.NumField() {
		name := a.Type().Field(i).Tag.Get("name")
		if h, o := a.Field(i).Interface(), b.Field(i).Interface(); name != "" && h != o {
			all = append(all, fmt.Sprintf("%s: %v, here %v", name, h, o))
		}
	}
	return all
}

// noteUnknown logs the 1st, 2nd, 4th, 8th ... of Oona's own records of unknown kinds. A later version
// has written them. They are skipped, and only advance the log clock.
func (p *machine) noteUnknown(kind string, at bus.Position) {
	p.unknown++
	if n := p.unknown; n&(n-1) == 0 {
		p.logger.Warn("a record is skipped because this version does not know its kind; if a later version of Oona writes to the topic, upgrade this aggregator",
			"kind", kind, "offset", at.Offset, "count", n)
	}
}
