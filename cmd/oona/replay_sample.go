package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/klauspost/compress/zstd"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
)

// sampled is how many records are read at a place for an estimate.
const sampled = 64

// errSampled ends the reading of a sample.
var errSampled = errors.New("the sample is large enough")

// sample is a part of the records of a range.
type sample struct {
	records int64
	bytes   int64 // of keys, headers and values
	values  []byte
}

// sampleOf reads some records at the beginning and in the middle of a range.
func sampleOf(ctx context.Context, log replay.Log, p *planned) (s sample, err error) {
	left := p.read()
	for _, from := range []int64{left.From, left.From + (left.End-left.From)/2} {
		if from >= left.End {
			break
		}
		n := 0
		err := log.Read(ctx, p.Topic, bus.Range{Partition: p.Partition, From: from, End: left.End}, func(msg *message.Message) error {
			if n++; n > sampled {
				return errSampled
			}
			at, err := bus.PositionOf(msg)
			if err != nil {
				return err
			}
			s.records++
			s.bytes += int64(len(at.Key) + bus.SizeOf(msg))
			s.values = append(s.values, msg.Payload...)
			return nil
		})
		if err != nil && !errors.Is(err, errSampled) {
			return s, err
		}
	}
	return s, nil
}

// of returns how much a number of records has, if they have what the sample has of it.
func (s *sample) of(records int64, amount float64) int64 {
	if s.records == 0 {
		return 0
	}
	return int64(amount / float64(s.records) * float64(records))
}

// archiveOverhead is what an archive adds to a record, at least: its place, its time, the
// lengths, and the marker of a block.
const archiveOverhead = 32

// parquetShare is how much smaller values get in Parquet files than by zstd alone, at most:
// their bytes are split, and ids and steps are delta-encoded.
const parquetShare = 0.5

// needed returns how many bytes of files a range takes at least, as far as a sample of it
// can say.
func (r *replayRun) needed(encoder *zstd.Encoder, s *sample, records int64) int64 {
	plain := float64(s.bytes)
	if len(s.values) == 0 {
		return 0
	}
	packed := float64(len(encoder.EncodeAll(s.values, nil)))
	switch {
	case r.Archive != "" && r.Codec == "null":
		return s.of(records, plain+archiveOverhead*float64(s.records))
	case r.Archive != "":
		return s.of(records, packed)
	case r.Avro.Avro != "" && r.Avro.AvroCodec == "null":
		return s.of(records, float64(len(s.values)))
	case r.Avro.Avro != "":
		return s.of(records, packed)
	}
	return s.of(records, parquetShare*packed)
}

// estimated sets the estimates of a plan, by samples: Needed if all records get into files as
// they are, and otherwise AtMost.
func (r *replayRun) estimated(ctx context.Context, log replay.Log, all []planned) error {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("estimate the size of the files: %w", err)
	}
	defer encoder.Close()
	for i := range all {
		p := &all[i]
		s, err := sampleOf(ctx, log, p)
		if err != nil {
			return err
		}
		p.Bytes = s.of(p.Records, float64(s.bytes))
		switch {
		case r.directory() == "":
		case r.Aggregate || !r.Select.isEmpty():
			p.AtMost = s.of(p.Records, float64(s.bytes)+archiveOverhead*float64(s.records))
		default:
			p.Needed = r.needed(encoder, &s, p.Records)
		}
	}
	return nil
}

// errNoSpace is returned if the files of a range would not fit on the disk.
var errNoSpace = errors.New("the disk has too little space")

// fits returns an error that wraps errNoSpace if the files of a plan would not fit on the
// disk, and says so if they may not. It reads samples, and writes nothing.
func (r *replayRun) fits(ctx context.Context, job *replaying, all []planned) error {
	dir := r.directory()
	if dir == "" {
		return nil
	}
	space, err := spaceOf(dir)
	if err != nil {
		return err
	}
	if err := r.estimated(ctx, job.log, all); err != nil {
		return err
	}
	var needed, atMost int64
	for i := range all {
		needed, atMost = needed+all[i].Needed, atMost+all[i].AtMost
	}
	available := max(0, space.free-space.reserve)
	if atMost > available {
		fmt.Fprintf(job.messages, "oona: the disk may have too little space: %s, and %s has %s for them; the replay ends before the disk is full\n", r.bound(atMost), space.dir, byteSize(available))
	}
	if needed > available {
		return fmt.Errorf("%w: the files need about %s or more, and %s has %s for them (%s free, of which %s are left free); nothing was written: give a directory on another disk, make room, or replay a part of the range (--from, --until, --partition, topics)", errNoSpace, byteSize(needed), space.dir, byteSize(available), byteSize(space.free), byteSize(space.reserve))
	}
	return nil
}

// bound says how much the files need at most, if that depends on the records.
func (r *replayRun) bound(atMost int64) string {
	if r.Aggregate {
		return fmt.Sprintf("the files of rollups usually need much less than the frames of the range, about %s", byteSize(atMost))
	}
	return fmt.Sprintf("the files need at most about %s, if everything is selected", byteSize(atMost))
}
