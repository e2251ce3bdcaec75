package history_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/history"
	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/windows"
)

func TestNextGenerations(t *testing.T) {
	for newest, want := range map[int32][2]int32{
		0:                 {1, 1000},
		7:                 {8, 1007},
		math.MaxInt32 - 1: {math.MaxInt32, math.MaxInt32},
	} {
		if least, greatest, err := history.NextGenerations(newest); err != nil || least != want[0] || greatest != want[1] {
			t.Errorf("after %d: %d to %d, %v; want %d", newest, least, greatest, err, want)
		}
	}
	if _, _, err := history.NextGenerations(math.MaxInt32); !errors.Is(err, history.ErrLastGeneration) {
		t.Errorf("after the last: %v", err)
	}
}

// Without a commit, it is not known which configuration holds in a log without one, or
// with one of a later version.
func TestWhyAConfigurationIsNotKnown(t *testing.T) {
	onInstallation(t, 3, func(i *installation) {
		i.tick(0)
		i.configured() // partitions 1 and 2, as 0 is not empty
		later := message.NewMessage("", []byte("who knows"))
		later.Metadata.Set(oona.HeaderRecord, "configuration/99")
		i.publish(i.topics.SeedMetrics, 1, later)
		h := i.history("")
		for p, want := range []error{history.ErrNoConfiguration, history.ErrLaterVersion, nil} {
			if got := h.Partitions[p].Unknown; !errors.Is(got, want) {
				i.Errorf("partition %d: %v, want %v", p, got, want)
			}
		}
		if newest := h.Newest(); newest.Generation != 1 {
			i.Errorf("the newest configuration is %+v", newest)
		}
	})
}

// A configuration must begin after the time of the frames that may arrive before it, and
// not before the last one. Otherwise, it is void.
func TestWhenAConfigurationMayBegin(t *testing.T) {
	onInstallation(t, 2, func(i *installation) {
		i.configured()
		at := func(generation int32, from oona.Micros) windows.Configuration {
			c := windows.Configuration{Config: windows.DefaultConfig(), From: from}
			c.Config.Generation = generation
			return c
		}
		time.Sleep(time.Minute)
		now := time.Now()
		h := i.history("")
		earliest := h.Earliest(now)
		if want := oona.MicrosOf(now.Add(windows.DefaultConfig().MaxSkew)); earliest != want {
			i.Errorf("the earliest is %d, want %d", earliest, want)
		}
		hour := earliest + oona.Micros(time.Hour/time.Microsecond)
		if err := h.Refuses(at(2, hour), now); err != nil {
			i.Errorf("generation 2: %v", err)
		}
		if err := settings.WriteConfiguration(i.Context(), i.bus, i.topics, []int32{1}, at(2, hour).Record()); err != nil {
			i.Fatal(err)
		}
		if err := h.ReadOn(i.Context()); err != nil {
			i.Fatal(err)
		}
		for _, c := range []windows.Configuration{at(2, hour+1e6), at(3, earliest+1e6)} {
			if void, ok := errors.AsType[*history.VoidError](h.Refuses(c, now)); !ok || void.Partition != 1 {
				i.Errorf("generation %d from %d: %v, want it void in partition 1", c.Config.Generation, c.From, void)
			}
		}
		if newest := h.Newest(); newest.Generation != 2 {
			i.Errorf("the newest configuration is %+v", newest)
		}
	})
}

// A partition is crowded when frames may come for ManyInReach configurations.
func TestCrowdedPartition(t *testing.T) {
	onInstallation(t, 2, func(i *installation) {
		i.configured()
		soon := oona.MicrosOf(time.Now().Add(5 * time.Minute))
		for n := range int32(history.ManyInReach - 1) {
			if p := i.history("").Crowded(); p != nil {
				i.Fatalf("with %d configurations, partition %d is crowded", n+1, p.Number)
			}
			c := windows.Configuration{Config: windows.DefaultConfig(), From: soon + oona.Micros(n)*60e6}
			c.Config.Generation = n + 2
			if err := settings.WriteConfiguration(i.Context(), i.bus, i.topics, []int32{1}, c.Record()); err != nil {
				i.Fatal(err)
			}
		}
		if p := i.history("").Crowded(); p == nil || p.Number != 1 {
			i.Errorf("the crowded partition is %+v, want 1", p)
		}
	})
}
