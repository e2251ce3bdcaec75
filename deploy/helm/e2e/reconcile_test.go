package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// frameID identifies a frame in its run.
type frameID struct {
	producer oona.ProducerID
	epoch    oona.Micros
	sequence int64
}

// account says what became of the frames of a run.
type account struct {
	records      int            // in the log, with repeats
	aside        map[string]int // records, by reason
	frames       map[frameID]bool
	folded       map[frameID]bool
	repeats      int64 // records of folded frames beyond the first
	rollupFrames map[oona.Group]int64
	rollupDups   int64 // repeats that the rollups of Health count
	windows      int
}

// origin is a record of the log.
type origin struct {
	partition int32
	offset    int64
}

// reconcile compares the frames that were sent with the log, with the rollups, and with the
// side topics: each frame is accounted for exactly once.
func (w *world) reconcile(ctx context.Context, sent map[oona.RunID]int64) error {
	topics, err := oona.NewTopics(w.prefix)
	if err != nil {
		return err
	}
	accounts := make(map[oona.RunID]*account)
	for run := range sent {
		accounts[run] = &account{
			aside: make(map[string]int), frames: make(map[frameID]bool), folded: make(map[frameID]bool), rollupFrames: make(map[oona.Group]int64),
		}
	}
	if err := w.readLog(ctx, topics, accounts); err != nil {
		return err
	}
	if err := w.readRollups(ctx, topics, accounts); err != nil {
		return err
	}
	var errs []error
	for run, frames := range sent {
		a := accounts[run]
		w.figure("run %s: %d frames sent and acknowledged, %d in the log (%d records), %d folded into %d windows, aside %v", run, frames, len(a.frames), a.records, len(a.folded), a.windows, a.aside)
		w.windows += a.windows
		errs = append(errs, a.check(run, frames))
	}
	return errors.Join(errs...)
}

func (a *account) check(run oona.RunID, sent int64) error {
	var errs []error
	equal := func(what string, got, want int64) {
		if got != want {
			errs = append(errs, fmt.Errorf("run %s: %s: %d, want %d", run, what, got, want))
		}
	}
	aside := 0
	for _, n := range a.aside {
		aside += n
	}
	equal("frames in the log", int64(len(a.frames)), sent)
	equal("frames in rollups of health", a.rollupFrames[oona.Health], int64(len(a.folded)))
	equal("frames in rollups of performance", a.rollupFrames[oona.Performance], int64(len(a.folded)))
	equal("repeats in rollups", a.rollupDups, a.repeats)
	equal("records folded, repeated and aside", int64(len(a.folded))+a.repeats+int64(aside), int64(a.records))
	equal("records that are late or refused", int64(aside), 0)
	return errors.Join(errs...)
}

// readLog reads the frames of the log, and which of them are on side topics.
func (w *world) readLog(ctx context.Context, topics oona.Topics, accounts map[oona.RunID]*account) error {
	aside := make(map[origin]string)
	for _, topic := range []string{topics.Late, topics.Quarantine, topics.Overflow, topics.SeedMetricsDead} {
		err := w.read(ctx, topic, func(r *kgo.Record) error {
			at, reason, err := originOf(r)
			aside[at] = reason
			return err
		})
		if err != nil {
			return err
		}
	}
	var decoder avro.FrameDecoder
	var f oona.Frame
	return w.read(ctx, topics.SeedMetrics, func(r *kgo.Record) error {
		if slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == oona.HeaderRecord }) {
			return nil // Oona's own
		}
		if _, err := decoder.Decode(r.Value, &f); err != nil {
			return fmt.Errorf("decode the record at %d of partition %d: %w", r.Offset, r.Partition, err)
		}
		a := accounts[f.Run]
		if a == nil {
			return nil // of helm test
		}
		id := frameID{f.Producer, f.Epoch, f.Sequence}
		a.records++
		a.frames[id] = true
		reason, isAside := aside[origin{r.Partition, r.Offset}]
		switch {
		case isAside:
			a.aside[reason]++
		case a.folded[id]:
			a.repeats++
		default:
			a.folded[id] = true
		}
		return nil
	})
}

func originOf(r *kgo.Record) (at origin, reason string, err error) {
	for _, header := range r.Headers {
		var number int64
		switch header.Key {
		case oona.HeaderErrorPartition:
			number, err = strconv.ParseInt(string(header.Value), 10, 32)
			at.partition = int32(number)
		case oona.HeaderErrorOffset:
			at.offset, err = strconv.ParseInt(string(header.Value), 10, 64)
		case oona.HeaderErrorException:
			reason = string(header.Value)
		}
		if err != nil {
			return at, reason, fmt.Errorf("the origin of a record of %s: %w", r.Topic, err)
		}
	}
	return at, reason, nil
}

// readRollups reads the rollups. One that was emitted again has the same content.
func (w *world) readRollups(ctx context.Context, topics oona.Topics, accounts map[oona.RunID]*account) error {
	type window struct {
		group oona.Group
		run   oona.RunID
		layer oona.LayerID
		start oona.Micros
	}
	hashes := make(map[window]uint64)
	for _, group := range []oona.Group{oona.Health, oona.Performance} {
		err := w.read(ctx, topics.Rollup(group), func(r *kgo.Record) error {
			var rollup oona.Rollup
			if _, err := avro.DecodeRollup(r.Value, &rollup); err != nil {
				return fmt.Errorf("decode the rollup at %d of partition %d: %w", r.Offset, r.Partition, err)
			}
			key := window{group, rollup.Run, rollup.Layer, rollup.Start}
			if hash, again := hashes[key]; again {
				if hash != rollup.Hash {
					return fmt.Errorf("the window %v was emitted with two contents", key)
				}
				return nil
			}
			hashes[key] = rollup.Hash
			if a := accounts[rollup.Run]; a != nil {
				a.rollupFrames[group] += rollup.Frames
				if group == oona.Health {
					a.rollupDups += rollup.Duplicates
					a.windows++
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// read calls each for every record of a topic.
func (w *world) read(ctx context.Context, topic string, each func(*kgo.Record) error) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Addrs()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("find the end of %s: %w", topic, err)
	}
	left := make(map[int32]int64) // by partition, the end of those that are not read yet
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read %s: %w", topic, err)
		}
		for iterator := fetches.RecordIter(); !iterator.Done(); {
			r := iterator.Next()
			if r.Offset >= left[r.Partition] {
				continue
			}
			if err := each(r); err != nil {
				return err
			}
			if r.Offset+1 == left[r.Partition] {
				delete(left, r.Partition)
			}
		}
	}
	return nil
}
