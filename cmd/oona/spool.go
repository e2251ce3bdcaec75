package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/entry"
)

type spoolCommand struct {
	Ls    spoolLs    `cmd:"" help:"List the content of the spool of an ingest that was not sent yet: files, requests, frames and events by run and layer, damage, and requests that were set aside. The command only reads. The spool may be in use."`
	Cat   spoolCat   `cmd:"" help:"Print the frames and events in the spool of an ingest that were not sent yet, as one JSON object per line. The command only reads. The spool may be in use."`
	Drain spoolDrain `cmd:"" help:"Send the content of a spool to the bus, if the ingest that wrote it will not run again. If the command was interrupted, run it again: it continues where it stopped. The exit status is 1 if something could not be sent."`
}

func defaultSpool() spoolCommand { return spoolCommand{Drain: defaultSpoolDrain()} }

// spoolRecordBytes is the maximum size of a record. It is larger than the limit of any ingest. This is
// safe, because reading a file needs no more memory than the size of the file.
const spoolRecordBytes = 1 << 30

// errNoSpool is returned for a directory that no ingest has used.
var errNoSpool = errors.New("the directory is not the spool of an ingest; give the --spool-directory of an ingest. This command does not read the spools of Python clients: the next client that starts with the same spool directory sends their content")

// lookAt reads a spool without changing it. If the directory is not a spool, the error wraps
// errNoSpool. Without this error, a wrong directory would look like a spool from which everything was
// sent, which has no files of records either.
func lookAt(dir string, take func(segment string, r spool.Record) error) (v *spool.View, used bool, err error) {
	if _, err = spool.OpenExisting(dir); err != nil {
		return nil, false, err
	}
	if used, err = spool.InUse(dir); err != nil {
		return nil, false, err
	}
	v, err = spool.LookQueues(dir, spoolRecordBytes, take)
	if err != nil || used || len(v.Segments)+len(v.Kept) > 0 {
		return v, used, err
	}
	is, err := spool.IsSpool(dir)
	if err == nil && !is {
		err = fmt.Errorf("%s: %w", dir, errNoSpool)
	}
	return v, used, err
}

// noteUse prints a note if the spool is in use.
func noteUse(w io.Writer, dir string, used bool) {
	if used {
		fmt.Fprintf(w, "oona: another process is using %s, so the output may already be out of date\n", dir)
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

// placeOf returns the run and the layer from the key of a frame or an event. The end of a run has no layer. For any other key it
// returns empty ids.
func placeOf(m *message.Message) (oona.RunID, oona.LayerID) {
	key := bus.TargetOf(m).Key
	if avro.RecordName(m.Payload) == avro.RunEndName {
		return oona.RunID(key), ""
	}
	run, layer, err := oona.ParseKey(key)
	if err != nil {
		run, layer, _, _ = oona.ParseSeedKey(key)
	}
	return run, layer
}

// spooled has the totals of some records of a spool.
type spooled struct {
	requests int64
	frames   int64
	events   int64
	bytes    int64
	from     oona.Micros // when the first request was spooled; 0 if there is none
	until    oona.Micros // when the last request was spooled
	unknown  int64       // number of records that are not requests
}

func (s *spooled) add(e *entry.Entry, bytes int) {
	s.requests++
	for _, m := range e.Messages {
		if avro.IsEvent(m.Payload) {
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
		text += fmt.Sprintf("; and %s that are not requests", plural(s.unknown, "record"))
	}
	return text
}

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
	errIncompleteSpool = errors.New("not everything in the spool was sent")
	// errIncompleteDryRun is returned if a drain could not send something of a spool.
	errIncompleteDryRun = errors.New("a drain could not send everything in the spool; this was a dry run, and nothing was sent")
)
