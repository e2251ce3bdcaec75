package aggregate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/windows"
)

// Why a partition is not opened. What was folded there before cannot be known,
// and a guess would give a rollup that differs from one already emitted, so the
// stage ends and says how to mend it.
var (
	// ErrNoCommit: the log does not begin at 0 and the group has no commit.
	ErrNoCommit = errors.New("the group has no commit where the log no longer holds its beginning")
	// ErrOvertaken: retention has deleted records that were not yet closed.
	ErrOvertaken = errors.New("the log no longer holds what the commit needs")
	// ErrAhead: the log has lost records that were read.
	ErrAhead = errors.New("the log ends before what was read of it when the commit was made")
	// ErrPartitions: keys have moved to other partitions.
	ErrPartitions = errors.New("the topic's number of partitions has changed")
	// ErrSettings: the worker began anew with other settings than the log's.
	ErrSettings = errors.New("the partition began anew, and its log was made with other settings than this worker has")
	// ErrCommitText: the commit was not written by this aggregator.
	ErrCommitText = errors.New("the commit cannot be read")
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

// engine returns the engine that a claim goes on with.
func (s *Stage) engine(c oona.Claim) (*windows.Engine, error) {
	if c.Committed.Offset == oona.NoOffset && c.LogStart == 0 {
		return windows.New(s.cfg.Windows, s.catalogue)
	}
	if c.Committed.Offset == oona.NoOffset {
		if !s.cfg.FromHere {
			return nil, fmt.Errorf("%w: %s/%d begins at offset %d; was the group's name changed, or have its offsets expired? Restore them, or begin anew with what the log still holds (--from-here)",
				ErrNoCommit, c.Topic, c.Partition, c.LogStart)
		}
		return s.anew(c, windows.Commit{})
	}
	overtaken := c.Committed.Offset < c.LogStart
	if overtaken && !s.cfg.FromHere {
		return nil, fmt.Errorf("%w: %s/%d begins at offset %d and was committed at %d; windows that were open have lost records. Lengthen the retention, and begin anew with what the log still holds (--from-here)",
			ErrOvertaken, c.Topic, c.Partition, c.LogStart, c.Committed.Offset)
	}
	partitions, commit, err := ParseCommit(c.Committed)
	if err != nil {
		return nil, fmt.Errorf("%s/%d at offset %d: %w", c.Topic, c.Partition, c.Committed.Offset, err)
	}
	if partitions != c.Partitions {
		return nil, fmt.Errorf("%w: %s had %d when this was committed and has %d; layers are in other partitions now than their open windows. Begin anew with topics of that number (--prefix)",
			ErrPartitions, c.Topic, partitions, c.Partitions)
	}
	readTo, err := commit.ProcessedTo()
	if err != nil {
		return nil, fmt.Errorf("%s/%d: %w", c.Topic, c.Partition, err)
	}
	ahead := readTo > c.HighWater
	if ahead && !s.cfg.FromHere {
		return nil, fmt.Errorf("%w: %s/%d ends at offset %d, and had been read up to %d; it has lost records (an unclean election, a restored backup), and what comes there now would be taken for what was read. Begin anew with what the log holds (--from-here), or with new topics (--prefix)",
			ErrAhead, c.Topic, c.Partition, c.HighWater, readTo)
	}
	if overtaken || ahead {
		return s.anew(c, commit)
	}
	engine, err := windows.Resume(s.cfg.Windows, s.catalogue, commit)
	if err != nil {
		return nil, fmt.Errorf("%s/%d at offset %d: %w", c.Topic, c.Partition, c.Committed.Offset, err)
	}
	return engine, nil
}

// anew returns an engine for what the log still holds. Commit is the group's,
// zero where there is none.
func (s *Stage) anew(c oona.Claim, commit windows.Commit) (*windows.Engine, error) {
	engine, err := windows.BeginAnew(s.cfg.Windows, s.catalogue, commit, c.LogStart, c.HighWater)
	if err != nil {
		return nil, fmt.Errorf("begin anew in %s/%d at offset %d: %w", c.Topic, c.Partition, c.LogStart, err)
	}
	s.logger.Warn("the partition begins anew: its past is lost", "partition", c.Partition, "log_start", c.LogStart, "log_end", c.HighWater,
		"committed", c.Committed.Offset, "windows", fmt.Sprintf("%+v", engine.Config()))
	return engine, nil
}

// ReadTo returns how far a partition had been read when a commit of it was made.
// Where the commit cannot be read, which Open says, that is its offset.
func ReadTo(c oona.Commit) int64 {
	_, commit, err := ParseCommit(c)
	if err != nil {
		return c.Offset
	}
	readTo, err := commit.ProcessedTo()
	if err != nil {
		return c.Offset
	}
	return readTo
}

// ParseCommit returns what a group's commit says: how many partitions the topic
// had, and what the engine goes on from. The error wraps ErrCommitText.
func ParseCommit(c oona.Commit) (partitions int32, engine windows.Commit, err error) {
	version, rest, _ := strings.Cut(c.Metadata, " ")
	count, text, found := strings.Cut(rest, " ")
	n, err := strconv.ParseInt(count, 10, 32)
	if version != commitVersion || !found || err != nil || n < 1 {
		return 0, windows.Commit{}, fmt.Errorf("%w: its metadata is %.40q; is the group's name another program's, or was it written by a later version?", ErrCommitText, c.Metadata)
	}
	return int32(n), windows.Commit{Offset: c.Offset, Metadata: text}, nil
}

// commit returns what may be committed: the engine as it stands, if everything
// that it has emitted is on the bus. False where nothing has changed, or that
// is not so now.
func (p *partition) commit() (oona.Commit, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending.Load() > 0 || p.engine.Replaying() || p.engine.ProcessedTo() == p.committedTo {
		return oona.Commit{}, false
	}
	c, err := p.engine.Commit()
	if err != nil {
		// The last commit stands, and grows old: that is alarmed on.
		p.stage.metrics.commits.WithLabelValues("too_large").Inc()
		p.logger.Error("the state does not fit a commit; the last one stands", "err", err)
		return oona.Commit{}, false
	}
	p.offered, p.offeredOf = p.engine.ProcessedTo(), neededSince(p.engine)
	return oona.Commit{Offset: c.Offset, Metadata: commitText(p.claim.Partitions, c.Metadata)}, true
}

// committed notes what became of the last commit.
func (p *partition) committed(c oona.Commit, err error) {
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
