package aggregate

import (
	"fmt"

	"github.com/morphogenetic/oona/windows"
)

// noteLoss takes note of what the engine lacks. Where the loss is of this claim,
// and not of an earlier one that the commit tells of, the first commit is made
// right away: it keeps where the log ended.
func (p *partition) noteLoss(now bool) {
	_, emits := p.engine.EmitsFrom()
	p.mute = !emits
	if now {
		p.committedTo = nothingCommitted
	}
	if p.mute {
		p.logger.Warn("no windows are emitted before the log has been read on for one maximum delay; frames go to the late topic", "reason", windows.ReasonLost)
	}
}

// nothingCommitted is an offset up to which no engine has processed.
const nothingCommitted = -1

// noteMute logs from where on windows are emitted, once that is known. Until
// then nothing was, and it ends the stage where the worker's settings cannot be
// the log's: a configuration of the log would be void because of them.
func (p *partition) noteMute(r *windows.Record) {
	if from, emits := p.engine.EmitsFrom(); emits {
		p.mute = false
		p.logger.Info("windows are emitted again", "from", from.Time())
		return
	}
	if r.Configuration == nil {
		return
	}
	if held, said := p.engine.Config().FrontierSlots, r.Configuration.Config.FrontierSlots; held != said {
		p.stage.end(fmt.Errorf("%w: the configuration at partition %d, offset %d says frontier-slots %d, which are a log's for good, and here they are %d; delete the group's offsets of the partition, and begin anew with --from-here and --frontier-slots=%[4]d",
			ErrSettings, p.assignment.Partition, r.Offset, said, held))
	}
}
