package loadgen

import (
	"errors"
	"fmt"
	"io"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// recording has the frames and the events of one run.
type recording struct {
	producers []oona.ProducerID // in the order of their first frames
	frames    map[oona.ProducerID][]*oona.Frame
	first     oona.Micros // the least event time
	events    []*oona.SeedEvent
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
		if err == io.EOF { // a wrapped EOF means that the file was cut off
			break
		}
		if err != nil {
			return nil, err
		}
		if e := entry.Event; e != nil {
			if err := e.Validate(); err != nil {
				return nil, fmt.Errorf("recording, entry %d: %w", n, err)
			}
			rec.events = append(rec.events, e)
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
			return nil, fmt.Errorf("recording, entry %d: its run is %s, but entries before it have run %s; record one run per file", n, f.Run, run)
		}
		rec.add(f, epochs)
	}
	if run == "" {
		return nil, errors.New("the recording has no frames")
	}
	return rec, nil
}

// add adds a frame. It replaces the frame's epoch by a small number per epoch, to be
// added to the new epoch: a producer that was restarted counts its frames from 0 again,
// and its epoch must differ, so that the frames are not repeats.
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
