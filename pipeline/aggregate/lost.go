package aggregate

import (
	"fmt"

	"github.com/morphogenetic/oona/windows"
)

// noteLoss takes note of what the engine lacks.
func (p *machine) noteLoss() {
	_, emits := p.engine.EmitsFrom()
	p.mute = !emits
	if p.mute {
		p.logger.Warn("no windows are emitted before the log has been read on for one maximum delay; frames go to the late topic", "reason", windows.ReasonLost)
	}
}

// noteMute logs from where on windows are emitted, once that is known. Until
// then nothing was, and returns an error, which ends the stage, where the worker's settings cannot be
// the log's: a configuration of the log would be void because of them.
func (p *machine) noteMute(r *windows.Record) error {
	if from, emits := p.engine.EmitsFrom(); emits {
		p.mute = false
		p.logger.Info("windows are emitted again", "from", from.Time())
		return nil
	}
	if r.Configuration == nil {
		return nil
	}
	if held, said := p.engine.Config().FrontierSlots, r.Configuration.Config.FrontierSlots; held != said {
		return fmt.Errorf("%w: the configuration at partition %d, offset %d says frontier-slots %d, which are a log's for good, and here they are %d; delete the group's offsets of the partition, and begin anew with --from-here and --frontier-slots=%[4]d",
			ErrSettings, p.about.Partition, r.Offset, said, held)
	}
	return nil
}
