package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
)

// bound is a flag for a place in the log of each partition.
type bound struct {
	text   string
	end    bool // where the log ends now
	at     oona.Micros
	ago    time.Duration
	number int64 // an offset, if none of the others is set
	isTime bool
	isAgo  bool
}

// UnmarshalText accepts beginning, now, a time, a duration ago, or an offset.
func (b *bound) UnmarshalText(text []byte) error {
	s := string(text)
	*b = bound{text: s}
	if s == "beginning" {
		return nil
	}
	if b.end = s == "now"; b.end {
		return nil
	}
	if digits, found := strings.CutPrefix(s, "offset:"); found {
		n, err := strconv.ParseUint(digits, 10, 63)
		b.number = int64(n)
		if err != nil {
			return fmt.Errorf("%q has no offset; give for example offset:1200", s)
		}
		return nil
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		b.ago, b.isAgo = ago, true
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return fmt.Errorf("%q is not valid; give beginning, now, a time such as 2026-11-27T18:00:00Z, a duration ago such as 2h, or offset:N", s)
	}
	b.at, b.isTime = oona.MicrosOf(at), true
	return nil
}

// isBefore reports whether a bound is before another one whatever the log holds.
func (b bound) isBefore(other bound, now time.Time) bool {
	if b.text == other.text {
		return false
	}
	at, timed := b.time(now)
	otherAt, otherTimed := other.time(now)
	switch {
	case b.text == "beginning":
		return true
	case timed && otherTimed:
		return at < otherAt
	case timed || otherTimed:
		return other.end
	}
	return b.number < other.number
}

// time returns the time of a place that is not an offset, or false.
func (b bound) time(now time.Time) (oona.Micros, bool) {
	switch {
	case b.end:
		return oona.MicrosOf(now), true
	case b.isAgo:
		return oona.MicrosOf(now.Add(-b.ago)), true
	}
	return b.at, b.isTime
}

// offset returns the offset of the place in a partition.
func (b bound) offset(ctx context.Context, log replay.Log, topic string, partition int32, held bus.Extent, now time.Time) (int64, error) {
	switch {
	case b.end:
		return held.End, nil
	case b.isAgo:
		return replay.OffsetAt(ctx, log, topic, partition, held, oona.MicrosOf(now.Add(-b.ago)))
	case b.isTime:
		return replay.OffsetAt(ctx, log, topic, partition, held, b.at)
	}
	return min(max(b.number, held.Start), held.End), nil
}
