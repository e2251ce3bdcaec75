package history_test

import (
	"errors"
	"log/slog"
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/internal/history"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/windows"
)

// installation has the topics of Oona on a bus in memory.
type installation struct {
	*testing.T
	bus    *memory.Bus
	topics oona.Topics
}

const group = "aggregators"

// onInstallation calls test with topics of the given number of partitions, which have no
// records. Time is simulated.
func onInstallation(t *testing.T, partitions int32, test func(i *installation)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		topics, err := oona.NewTopics("history")
		if err != nil {
			t.Fatal(err)
		}
		i := &installation{t, memory.New(), topics}
		i.make(partitions)
		test(i)
	})
}

// make creates the topics that are missing.
func (i *installation) make(partitions int32) {
	i.Helper()
	if _, err := i.bus.Apply(i.Context(), append(i.topics.Specs(partitions), i.topics.SettingsSpec())); err != nil {
		i.Fatal(err)
	}
}

// configured writes the first records into empty partitions: the start of an
// incarnation, and a configuration.
func (i *installation) configured() {
	i.Helper()
	first := windows.Configuration{Config: windows.DefaultConfig()}
	first.Config.Generation = 1
	if _, err := settings.WriteFirst(i.Context(), i.bus, i.topics, first.Record(), "test", slog.New(slog.DiscardHandler)); err != nil {
		i.Fatal(err)
	}
}

// publish publishes a message to a partition.
func (i *installation) publish(topic string, partition int32, msg *message.Message) {
	i.Helper()
	publisher, err := i.bus.Publisher(bus.PublisherOptions{})
	if err != nil {
		i.Fatal(err)
	}
	msg.SetContext(bus.WithTarget(msg.Context(), bus.Target{Partition: partition, Directed: true}))
	if err := publisher.Publish(i.Context(), topic, msg); err != nil {
		i.Fatal(err)
	}
	if err := publisher.Close(); err != nil {
		i.Fatal(err)
	}
}

// tick writes a tick into a partition.
func (i *installation) tick(partition int32) {
	i.Helper()
	tick := message.NewMessage("", nil)
	tick.Metadata.Set(oona.HeaderRecord, oona.TickRecord)
	i.publish(i.topics.SeedMetrics, partition, tick)
}

// history returns the history of the topic of frames up to its end.
func (i *installation) history(group string) *history.History {
	i.Helper()
	h, err := history.Open(i.Context(), i.bus, i.topics.SeedMetrics, group)
	if err != nil {
		i.Fatal(err)
	}
	if err := h.ReadOn(i.Context()); err != nil {
		i.Fatal(err)
	}
	return h
}

// commit commits what an aggregator of the group commits that has folded all records.
func (i *installation) commit() {
	i.Helper()
	commits := make(map[int32]bus.Commit)
	h := i.history("")
	for _, p := range h.Partitions {
		c, err := p.Engine.Commit()
		if err != nil {
			i.Fatal(err)
		}
		commits[p.Number] = bus.Commit{Offset: c.Offset, Metadata: "oona1 " + strconv.Itoa(len(h.Partitions)) + " " + c.Metadata}
	}
	if err := i.bus.SetCommits(i.Context(), group, i.topics.SeedMetrics, commits); err != nil {
		i.Fatal(err)
	}
}

// If the log ends before the offset that was read, it is not known which configuration
// holds. Aggregators refuse the partition, too.
func TestLogThatHasLostItsEnd(t *testing.T) {
	onInstallation(t, 1, func(i *installation) {
		i.configured()
		for range 5 {
			i.tick(0)
		}
		i.commit()
		commits, err := i.bus.Commits(i.Context(), group, i.topics.SeedMetrics)
		if err != nil {
			i.Fatal(err)
		}
		_, commit, err := aggregate.ParseCommit(commits[0])
		if err != nil {
			i.Fatal(err)
		}
		reached, err := commit.Reached()
		if err != nil || reached.ProcessedTo != 7 {
			i.Fatalf("the commit is of %+v, %v", reached, err)
		}
		if p := i.history(group).Partitions[0]; p.Unknown != nil || len(p.InReach) != 1 || p.InReach[0].Config.Generation != 1 {
			i.Errorf("the partition is %+v", p)
		}
		if err := i.bus.LoseTail(i.topics.SeedMetrics, 0, reached.ProcessedTo-1); err != nil {
			i.Fatal(err)
		}
		if p := i.history(group).Partitions[0]; !errors.Is(p.Unknown, aggregate.ErrAhead) || p.Engine.Incarnation() == 0 {
			i.Errorf("the partition without its end is %+v", p)
		}
	})
}
