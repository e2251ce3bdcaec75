package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/entry"
)

type spoolCommand struct {
	Ls    spoolLs    `cmd:"" help:"List what is left in the spool of an ingest: files, requests, frames and events by run and layer, damage, and what was set aside. Nothing is written, and the spool may be in use."`
	Cat   spoolCat   `cmd:"" help:"Print the frames and events that are left in the spool of an ingest as JSON, one on a line. Nothing is written, and the spool may be in use."`
	Drain spoolDrain `cmd:"" help:"Send what is left in the spool of an ingest that does not come back to the bus. A repeat continues where an interrupted drain has ended. The exit status is 1 if something could not be sent."`
}

func defaultSpool() spoolCommand { return spoolCommand{Drain: defaultSpoolDrain()} }

// spoolRecordBytes is larger than the limit of any ingest for a record. Reading never takes more
// memory than a file has bytes.
const spoolRecordBytes = 1 << 30

// lookAt reads a spool without changing it.
func lookAt(dir string, take func(segment string, r spool.Record) error) (v *spool.View, used bool, err error) {
	if _, err = spool.OpenExisting(dir); err != nil {
		return nil, false, err
	}
	if used, err = spool.InUse(dir); err != nil {
		return nil, false, err
	}
	v, err = spool.LookQueues(dir, spoolRecordBytes, take)
	return v, used, err
}

// noteUse prints a note if the spool is in use, or if the directory is not a spool. A spool from
// which everything was sent has no files of records, but is still a spool.
func noteUse(w io.Writer, dir string, files int, used bool) {
	if used {
		fmt.Fprintf(w, "oona: a process uses %s, so what is shown may change\n", dir)
		return
	}
	if is, err := spool.IsSpool(dir); files == 0 && (err != nil || !is) {
		fmt.Fprintf(w, "oona: %s has no files of a spool; is it the --spool-directory of an ingest? What a Python client has left is sent by the next client with the same spool\n", dir)
	}
}

// topicsOf returns the names of the topics of an installation, given the name of one of them.
func topicsOf(topic string) (oona.Topics, error) {
	known, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		return known, err
	}
	for _, spec := range append(known.Specs(0), known.EventSpecs(0)...) {
		if prefix, found := strings.CutSuffix(topic, strings.TrimPrefix(spec.Name, oona.DefaultPrefix)); found && prefix != "" {
			return oona.NewTopics(prefix)
		}
	}
	return known, nil
}

// placeOf returns the run and the layer in the key of a frame or an event. Both are empty for any
// other key.
func placeOf(key []byte) (oona.RunID, oona.LayerID) {
	run, layer, err := oona.ParseKey(key)
	if err != nil {
		run, layer, _, _ = oona.ParseSeedKey(key)
	}
	return run, layer
}

// spooled counts what records of a spool have.
type spooled struct {
	requests int64
	frames   int64
	events   int64
	bytes    int64
	from     oona.Micros // when they were spooled; 0: none
	until    oona.Micros
	unknown  int64 // records that are not requests
}

func (s *spooled) add(e *entry.Entry, bytes int) {
	s.requests++
	for _, m := range e.Messages {
		if isEvent(m) {
			s.events++
		} else {
			s.frames++
		}
	}
	s.bytes += int64(bytes)
	s.until = max(s.until, e.Spooled)
	if s.from == 0 || e.Spooled < s.from {
		s.from = e.Spooled
	}
}

// String returns the counts as text for people.
func (s *spooled) String() string {
	text := fmt.Sprintf("%s, %s, %s", plural(s.requests, "request"), amounts(s.frames, s.events), byteSize(s.bytes))
	if s.requests > 0 {
		text += fmt.Sprintf(", spooled %s", span(timeOf(s.from), timeOf(s.until)))
	}
	if s.unknown > 0 {
		text += fmt.Sprintf("; and %s that are no requests", plural(s.unknown, "record"))
	}
	return text
}

func isEvent(m *message.Message) bool { return avro.RecordName(m.Payload) == avro.EventName }

// amounts returns numbers of frames and events, for people.
func amounts(frames, events int64) string {
	switch {
	case events == 0:
		return plural(frames, "frame")
	case frames == 0:
		return plural(events, "event")
	}
	return plural(frames, "frame") + ", " + plural(events, "event")
}

var (
	// errIncompleteSpool is returned if something of a spool was not sent.
	errIncompleteSpool = errors.New("a part of the spool was not sent")
	// errIncompleteDryRun is returned if a drain could not send something of a spool.
	errIncompleteDryRun = errors.New("a drain would not send a part of the spool; this was a dry run, and nothing was sent")
)
