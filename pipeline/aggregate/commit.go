package aggregate

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/windows"
)

// DefaultGroup is the default name of the consumer group.
const DefaultGroup = "oona-aggregate"

// commitVersion is the first word of a commit's metadata. After it come the number of partitions
// and the metadata of the engine.
const commitVersion = "oona1"

func commitText(partitions int32, engine string) string {
	return commitVersion + " " + strconv.Itoa(int(partitions)) + " " + engine
}

// ParseCommit returns the parts of a group's commit: how many partitions the topic had,
// and the commit of the engine. The error wraps ErrCommitText.
func ParseCommit(c bus.Commit) (partitions int32, engine windows.Commit, err error) {
	version, rest, _ := strings.Cut(c.Metadata, " ")
	count, text, found := strings.Cut(rest, " ")
	n, err := strconv.ParseInt(count, 10, 32)
	if version != commitVersion || !found || err != nil || n < 1 {
		return 0, windows.Commit{}, fmt.Errorf("%w: its metadata is %.40q; does another program use the group, or was it written by a later version?", ErrCommitText, c.Metadata)
	}
	return int32(n), windows.Commit{Offset: c.Offset, Metadata: text}, nil
}

// Commit returns the engine's commit, with the number of partitions.
func (p *machine) Commit() (bus.Commit, error) {
	c, err := p.engine.Commit()
	if err != nil {
		return bus.Commit{}, err
	}
	return bus.Commit{Offset: c.Offset, Metadata: commitText(p.about.Partitions, c.Metadata)}, nil
}
