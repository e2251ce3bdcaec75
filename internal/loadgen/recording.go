package loadgen

import (
	"errors"
	"fmt"
	"io"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// recording is the frames of one run, by producer, each in the order read.
type recording struct {
	producers []oona.ProducerID // in the order of their first frames
	frames    map[oona.ProducerID][]*oona.Frame
	first     oona.Micros // the least time of a frame
	events    int64
}

// read reads a recording to its end.
func read(r io.Reader) (*recording, error) {
	reader, err := avro.NewRecordingReader(r)
	if err != nil {
		return nil, err
	}
	rec := &recording{frames: make(map[oona.ProducerID][]*oona.Frame)}
	epochs := make(map[oona.Micros]oona.Micros)
	var run oona.RunID
	for n := 0; ; n++ {
		entry, err := reader.Next()
		if err == io.EOF { // wrapped, it is a file that was cut off
			break
		}
		if err != nil {
			return nil, err
		}
		if entry.Frame == nil {
			rec.events++
			continue
		}
		f := entry.Frame
		if err := f.Validate(oona.DefaultFrameLimits); err != nil {
			return nil, fmt.Errorf("recording, entry %d: %w", n, err)
		}
		if run == "" {
			run, rec.first = f.Run, f.ObservedAt
		}
		if f.Run != run {
			return nil, fmt.Errorf("recording, entry %d: it is of run %s, those before are of %s; play one run at a time", n, f.Run, run)
		}
		rec.add(f, epochs)
	}
	if run == "" {
		return nil, errors.New("recording: it has no frames")
	}
	return rec, nil
}

// add keeps the frame. Its epoch becomes a number of its own for each epoch
// of the recording, to be added to the new one: a producer that was started
// again counts its frames from 0 again, and they are no repeats.
func (r *recording) add(f *oona.Frame, epochs map[oona.Micros]oona.Micros) {
	epoch, known := epochs[f.Epoch]
	if !known {
		epoch = oona.Micros(len(epochs))
		epochs[f.Epoch] = epoch
	}
	f.Epoch = epoch
	r.first = min(r.first, f.ObservedAt)
	if r.frames[f.Producer] == nil {
		r.producers = append(r.producers, f.Producer)
	}
	r.frames[f.Producer] = append(r.frames[f.Producer], f)
}

func (r *recording) sources() []source {
	var sources []source
	for _, producer := range r.producers {
		sources = append(sources, &recorded{frames: r.frames[producer], first: r.first})
	}
	return sources
}

// recorded is the source of one producer of a recording.
type recorded struct {
	frames []*oona.Frame
	first  oona.Micros
}

func (r *recorded) next() (*oona.Frame, oona.Micros, bool) {
	if len(r.frames) == 0 {
		return nil, 0, false
	}
	f := r.frames[0]
	r.frames[0] = nil // sent frames need not be kept
	r.frames = r.frames[1:]
	return f, f.ObservedAt - r.first, true
}
