package aggregate

import (
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// noteLoss logs that the engine does not emit windows yet, if records or commits were lost.
func (p *machine) noteLoss() {
	_, emits := p.engine.EmitsFrom()
	p.withheld = !emits
	if p.withheld {
		p.logger.Warn("records or commits were lost: no windows are emitted until the log has been read on for max-delay and max-skew; frames go to the late topic", "reason", windows.ReasonLost)
	}
}

// EmitsFrom returns the earliest start of a window that is emitted, or false if none is
// emitted yet.
func (p *machine) EmitsFrom() (oona.Micros, bool) { return p.engine.EmitsFrom() }

// noteLossEnd logs from which time on windows are emitted, once that is known. Until then, it returns
// an error if the log has a configuration that would have no effect because of the worker's settings.
// The error ends the stage before it has emitted anything.
func (p *machine) noteLossEnd(r *windows.Record) error {
	if from, emits := p.engine.EmitsFrom(); emits {
		p.withheld = false
		p.logger.Info("windows are emitted again", "from", from.Time())
		return nil
	}
	if r.Configuration == nil {
		return nil
	}
	if held, said := p.engine.Config().FrontierSlots, r.Configuration.Config.FrontierSlots; held != said {
		return fmt.Errorf("%w: the configuration at partition %d, offset %d has frontier-slots=%d, and this worker has %d. The number cannot change during the life of a log. Delete the group's offsets of the partition, and start the aggregator with --from-here --frontier-slots=%[4]d",
			ErrSettings, p.about.Partition, r.Offset, said, held)
	}
	return nil
}
