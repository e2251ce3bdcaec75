package aggregate

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/windows"
)

// DefaultGroup is the group whose members share the partitions, unless they are
// told another name.
const DefaultGroup = "oona-aggregate"

// commitVersion begins the text of a commit: version, partitions, and then the
// engine's own.
const commitVersion = "oona1"

func commitText(partitions int32, engine string) string {
	return commitVersion + " " + strconv.Itoa(int(partitions)) + " " + engine
}

// ParseCommit returns what a group's commit says: how many partitions the topic
// had, and what the engine goes on from. The error wraps ErrCommitText.
func ParseCommit(c bus.Commit) (partitions int32, engine windows.Commit, err error) {
	version, rest, _ := strings.Cut(c.Metadata, " ")
	count, text, found := strings.Cut(rest, " ")
	n, err := strconv.ParseInt(count, 10, 32)
	if version != commitVersion || !found || err != nil || n < 1 {
		return 0, windows.Commit{}, fmt.Errorf("%w: its metadata is %.40q; is the group's name another program's, or was it written by a later version?", ErrCommitText, c.Metadata)
	}
	return int32(n), windows.Commit{Offset: c.Offset, Metadata: text}, nil
}

// Commit returns what may be committed: the engine as it stands, if everything
// that it has emitted is on the bus. False where nothing has changed, or that
// is not so now.
func (p *partition) Commit() (bus.Commit, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending.Load() > 0 || p.engine.Replaying() || p.engine.ProcessedTo() == p.committedTo {
		return bus.Commit{}, false
	}
	c, err := p.engine.Commit()
	if err != nil {
		// The last commit stands, and grows old: that is alarmed on.
		p.stage.metrics.commits.WithLabelValues("too_large").Inc()
		p.logger.Error("the state does not fit a commit; the last one stands", "err", err)
		return bus.Commit{}, false
	}
	p.offered, p.offeredOf = p.engine.ProcessedTo(), neededSince(p.engine)
	return bus.Commit{Offset: c.Offset, Metadata: commitText(p.assignment.Partitions, c.Metadata)}, true
}

// Committed notes what became of the last commit.
func (p *partition) Committed(c bus.Commit, err error) {
	if err != nil {
		p.stage.metrics.commits.WithLabelValues("failed").Inc()
		p.logger.Warn("a commit failed; the last one stands", "offset", c.Offset, "err", err)
		return
	}
	p.stage.metrics.commits.WithLabelValues("done").Inc()
	p.committedAt.Store(time.Now().UnixNano())
	p.metadataBytes.Store(int64(len(c.Metadata)))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committedTo = p.offered
	if p.offeredOf > 0 {
		p.needed.Store(p.offeredOf)
	}
}
