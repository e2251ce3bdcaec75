package settings_test

import (
	"slices"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/schemas/avro"
)

// rollup publishes a rollup of a partition.
func rollup(t *testing.T, b bus.Bus, topics oona.Topics, group oona.Group, partition int32, trigger oona.Trigger) {
	t.Helper()
	r := oona.Rollup{
		Group: group, Run: "r", Layer: "l", Start: 1_700_000_000e6, End: 1_700_000_010e6, Trigger: trigger,
		FirstOffset: 1, LastOffset: 2, Frames: 1, Generation: 1, Reducer: 2,
	}
	r.Hash = r.ContentHash()
	publish(t, b, topics.Rollup(group), directed(partition, avro.AppendRollup(nil, &r)))
}

// The last trigger is the greater one of both topics, for one partition.
func TestLastTrigger(t *testing.T) {
	onBus(t, func(t *testing.T, b *memory.Bus, topics oona.Topics) {
		makeTopics(t, b, topics, 3)
		last := func(partition int32) (oona.Trigger, bool) {
			t.Helper()
			trigger, found, err := settings.LastTrigger(t.Context(), b, topics, partition)
			if err != nil {
				t.Fatal(err)
			}
			return trigger, found
		}
		if trigger, found := last(1); found {
			t.Errorf("without rollups it is %+v", trigger)
		}
		rollup(t, b, topics, oona.Performance, 1, oona.Trigger{Incarnation: 5, Offset: 7, Index: 1})
		rollup(t, b, topics, oona.Health, 1, oona.Trigger{Incarnation: 4, Offset: 1000})
		rollup(t, b, topics, oona.Health, 2, oona.Trigger{Incarnation: 9, Offset: 1})
		if trigger, found := last(1); !found || trigger != (oona.Trigger{Incarnation: 5, Offset: 7, Index: 1}) {
			t.Errorf("it is %+v, %v", trigger, found)
		}
		if trigger, found := last(0); found {
			t.Errorf("of a partition without rollups it is %+v", trigger)
		}
		publish(t, b, topics.LayerHealth, directed(0, []byte("no rollup")))
		if _, _, err := settings.LastTrigger(t.Context(), b, topics, 0); err == nil {
			t.Error("a last record that cannot be read was passed over")
		}
	})
}

// The number is at least a minute above all numbers that are known of the partition.
func TestBeginIncarnation(t *testing.T) {
	onBus(t, func(t *testing.T, b *memory.Bus, topics oona.Topics) {
		makeTopics(t, b, topics, 2)
		publish(t, b, topics.SeedMetrics, directed(1, []byte("frame")))
		before := oona.Incarnation(oona.MicrosOf(time.Now()))
		const minute = oona.Incarnation(60e6)
		ahead := before + 1000*minute
		end, err := settings.BeginIncarnation(t.Context(), b, topics, 1, 0, 99, "the end was lost", "w")
		if err != nil || end != 2 {
			t.Fatalf("the partition ends at %d, %v", end, err)
		}
		first := start(t, records(t, b, topics, 1)[1])
		if first.Number < before || first.Number > before+minute || first.PreviousEnd != 99 || first.Reason != "the end was lost" || first.Worker != "w" || first.Validate() != nil {
			t.Errorf("the record says %+v", first)
		}
		if got := read(t, b, topics).Incarnation(topics.SeedMetrics, 1); got != first.Number {
			t.Errorf("the settings say %d, the record %d", got, first.Number)
		}
		next := func(known oona.Incarnation) oona.Incarnation {
			t.Helper()
			if _, err := settings.BeginIncarnation(t.Context(), b, topics, 1, known, oona.NoOffset, "", "w"); err != nil {
				t.Fatal(err)
			}
			all := records(t, b, topics, 1)
			return start(t, all[len(all)-1]).Number
		}
		if got := next(0); got < first.Number+minute {
			t.Errorf("after %d of the settings comes %d", first.Number, got)
		}
		if got := next(ahead); got != ahead+minute {
			t.Errorf("after %d of the log comes %d", ahead, got)
		}
		rollup(t, b, topics, oona.Health, 1, oona.Trigger{Incarnation: ahead + 10*minute, Offset: 3})
		if got := next(0); got != ahead+11*minute {
			t.Errorf("after rollups of %d comes %d", ahead+10*minute, got)
		}
		if all := records(t, b, topics, 0); len(all) != 0 {
			t.Errorf("another partition has %d records", len(all))
		}
	})
}

// Without a settings topic, an incarnation can begin, too.
func TestBeginIncarnationWithoutSettings(t *testing.T) {
	onBus(t, func(t *testing.T, b *memory.Bus, topics oona.Topics) {
		apply(t, b, topics.Specs(1)...)
		if end, err := settings.BeginIncarnation(t.Context(), b, topics, 0, 0, oona.NoOffset, "", "w"); err != nil || end != 1 {
			t.Errorf("the partition ends at %d, %v", end, err)
		}
	})
}

// Empty partitions get the start of an incarnation and a configuration. A partition with
// the start alone gets the configuration. Others get nothing.
func TestWriteFirst(t *testing.T) {
	onBus(t, func(t *testing.T, b *memory.Bus, topics oona.Topics) {
		makeTopics(t, b, topics, 4)
		publish(t, b, topics.SeedMetrics, directed(1, []byte("frame")))
		if _, err := settings.BeginIncarnation(t.Context(), b, topics, 2, 0, oona.NoOffset, "", "w"); err != nil {
			t.Fatal(err)
		}
		emitted := oona.Incarnation(oona.MicrosOf(time.Now().Add(time.Hour)))
		rollup(t, b, topics, oona.Health, 3, oona.Trigger{Incarnation: emitted, Offset: 9}) // from a log that was deleted
		write := func() []int32 {
			t.Helper()
			written, err := settings.WriteFirst(t.Context(), b, topics, configuration(1), "w", discard())
			if err != nil {
				t.Fatal(err)
			}
			return written
		}
		if written := write(); !slices.Equal(written, []int32{0, 2, 3}) {
			t.Errorf("written to %v", written)
		}
		if written := write(); len(written) > 0 {
			t.Errorf("written again to %v", written)
		}
		s := read(t, b, topics)
		for _, partition := range []int32{0, 2, 3} {
			all := records(t, b, topics, partition)
			if len(all) != 2 {
				t.Fatalf("partition %d has %d records", partition, len(all))
			}
			if n := start(t, all[0]).Number; s.Incarnation(topics.SeedMetrics, partition) != n || partition == 3 && n <= emitted {
				t.Errorf("partition %d is in incarnation %d, and the settings say %d", partition, n, s.Incarnation(topics.SeedMetrics, partition))
			}
			c, err := avro.DecodeConfiguration(all[1].Payload)
			if err != nil || c != configuration(1) || s.Windows[partition] != c || all[1].Metadata.Get(oona.HeaderRecord) != oona.ConfigurationRecord {
				t.Errorf("partition %d has %+v, %v; the settings say %+v", partition, c, err, s.Windows[partition])
			}
		}
		log := settings.Log{Bus: b, Topics: topics, Worker: "w"}
		if last, found, err := log.LastWindows(t.Context(), 3); err != nil || !found || last != configuration(1) {
			t.Errorf("partition 3 was last configured as %+v, %t, %v", last, found, err)
		}
		if last, found, err := log.LastWindows(t.Context(), 1); err != nil || found {
			t.Errorf("partition 1 was last configured as %+v, %v", last, err)
		}
		if all := records(t, b, topics, 1); len(all) != 1 || len(s.Windows) != 3 {
			t.Errorf("a partition with a record has %d, windows are of %d partitions", len(all), len(s.Windows))
		}
	})
}
