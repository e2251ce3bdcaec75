package aggregate

import (
	"errors"
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

// ErrUpgrade says that windows are configured in a way that this version does
// not know. To go on would be to fold wrongly.
var ErrUpgrade = errors.New("a configuration in the log is of a later version of Oona; upgrade this aggregator")

// decodeConfiguration sets record's configuration, or returns why it cannot:
// then only time passes with the record. The error is ErrUpgrade.
func (p *partition) decodeConfiguration(kind string, payload []byte, record *windows.Record) (verdict, rejection, error) {
	if kind != oona.ConfigurationRecord {
		return 0, rejection{}, fmt.Errorf("%w: its kind is %s, and this one knows %s", ErrUpgrade, kind, oona.ConfigurationRecord)
	}
	dead := p.stage.cfg.Topics.SeedMetricsDead
	said, err := avro.DecodeConfiguration(payload)
	if errors.Is(err, avro.ErrUnpublished) {
		return 0, rejection{}, fmt.Errorf("%w: %w", ErrUpgrade, err)
	}
	if err != nil {
		return verdictDead, rejection{dead, reasonUndecodable, err.Error()}, nil
	}
	c, err := windows.ConfigurationOf(&said)
	if errors.Is(err, windows.ErrReducer) {
		return 0, rejection{}, fmt.Errorf("%w: %w", ErrUpgrade, err)
	}
	if err != nil {
		return verdictDead, rejection{dead, reasonInvalid, err.Error()}, nil
	}
	record.Configuration = &c
	return verdictOwn, rejection{}, nil
}

// noteConfiguration logs what became of a configuration. It comes seldom.
func (p *partition) noteConfiguration(o windows.Outcome, at pipeline.Position) {
	if o.Reason == windows.ReasonConfigured {
		p.logger.Info("the log configures the windows", "reason", o.Reason, "detail", o.Detail, "offset", at.Offset)
		p.compareSettings("the partition goes on with the windows of its log, not with this worker's settings")
		return
	}
	p.logger.Warn("a configuration in the log changes nothing", "reason", o.Reason, "detail", o.Detail, "offset", at.Offset)
}

// compareSettings warns where the partition's windows are not those of the
// worker's settings, which have no generation.
func (p *partition) compareSettings(warning string) {
	held, settings := p.engine.Config(), p.stage.cfg.Windows
	generation := held.Generation
	held.Generation = settings.Generation
	if held != settings {
		p.logger.Warn(warning, "generation", generation, "windows", fmt.Sprintf("%+v", held), "settings", fmt.Sprintf("%+v", settings))
	}
}

// noteUnknown logs the 1st, 2nd, 4th ... of Oona's own records of a kind that a
// later version writes: it is skipped, and only time passes with it.
func (p *partition) noteUnknown(kind string, at pipeline.Position) {
	if n := p.unknown.Add(1); n&(n-1) == 0 {
		p.logger.Warn("a record of a kind that this version does not know is skipped; was the aggregator rolled out after its writer?",
			"kind", kind, "offset", at.Offset, "such_so_far", n)
	}
}
