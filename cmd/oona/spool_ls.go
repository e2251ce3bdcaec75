package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/units"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/spool"
	"github.com/morphogenetic/oona/spool/entry"
)

type spoolLs struct {
	Directory string `arg:"" name:"directory" type:"path" help:"Directory of the spool."`
	JSON      bool   `name:"json" env:"-" help:"Print the list as one JSON object."`
}

// spoolListing describes the content of a spool that was not sent yet.
type spoolListing struct {
	Directory string        `json:"directory"`
	InUse     bool          `json:"in_use"`
	Requests  int64         `json:"requests"`
	Frames    int64         `json:"frames"`
	Events    int64         `json:"events"`
	Unknown   int64         `json:"no_requests"` // records that are not requests
	Lost      int64         `json:"lost"`        // requests that were lost through damage
	Problem   string        `json:"problem,omitempty"`
	Files     []spoolFile   `json:"files"`
	Layers    []*spoolLayer `json:"layers"`
	SetAside  []spoolAside  `json:"set_aside"`

	all     spooled
	topics  map[string]int64               // number of requests for each topic
	stale   map[oona.RunID]int64           // number of frames of each run that are too old, if old is not nil
	old     func(string, *oona.Frame) bool // reports whether a frame for a topic is too old
	files   map[string]*spooled            // totals of each file, by name
	layers  map[spoolLayer]*spoolLayer
	decoder avro.FrameDecoder
	frame   oona.Frame
}

// spoolFile is a segment of a spool.
type spoolFile struct {
	Name     string     `json:"name"`
	Bytes    int64      `json:"bytes"`
	Requests int64      `json:"requests"` // requests, frames and events that were not sent yet
	Frames   int64      `json:"frames"`
	Events   int64      `json:"events"`
	From     *time.Time `json:"spooled_from,omitempty"`
	Until    *time.Time `json:"spooled_until,omitempty"`
	Damaged  int64      `json:"damaged"`     // number of damaged places in the file
	Lost     int64      `json:"lost"`        // requests that were lost in them
	Torn     int64      `json:"torn"`        // bytes after the last valid request, from an unfinished write or from damage
	Doubtful bool       `json:"damaged_end"` // whether the torn bytes may have been an acknowledged request
	Problem  string     `json:"problem,omitempty"`
}

// spoolLayer has the totals of a layer of a run in a topic.
type spoolLayer struct {
	Topic  string       `json:"topic"`
	Run    oona.RunID   `json:"run_id"`
	Layer  oona.LayerID `json:"layer_id"`
	Frames int64        `json:"frames"`
	Events int64        `json:"events"`
	Bytes  int64        `json:"bytes"`
	From   *time.Time   `json:"observed_from,omitempty"`
	Until  *time.Time   `json:"observed_until,omitempty"`

	from, until oona.Micros
}

// at takes the time of a frame or of an event into account.
func (l *spoolLayer) at(at oona.Micros) {
	l.until = max(l.until, at)
	if l.from == 0 || at < l.from {
		l.from = at
	}
}

// spoolAside is a file that was set aside.
type spoolAside struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	Record bool   `json:"record"` // true: a request that could not be sent; false: damaged bytes
}

// Run runs the command.
func (l *spoolLs) Run(ctx context.Context, to streams) error {
	listing, err := listSpool(ctx, l.Directory, nil)
	if err != nil {
		return err
	}
	noteUse(to.messages, l.Directory, listing.InUse)
	if l.JSON {
		return writeJSON(to.out, listing)
	}
	return listing.print(to.out)
}

// listSpool lists a spool. The function old reports whether a frame for a topic is too old for the
// windows. It is nil if that is not known.
func listSpool(ctx context.Context, dir string, old func(topic string, f *oona.Frame) bool) (*spoolListing, error) {
	l := &spoolListing{Directory: dir, Files: []spoolFile{}, Layers: []*spoolLayer{}, SetAside: []spoolAside{},
		topics: make(map[string]int64), stale: make(map[oona.RunID]int64), old: old,
		files: make(map[string]*spooled), layers: make(map[spoolLayer]*spoolLayer)}
	v, used, err := lookAt(dir, func(file string, r spool.Record) error {
		l.add(file, r.Body)
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	l.InUse, l.Requests, l.Frames, l.Events, l.Unknown = used, l.all.requests, l.all.frames, l.all.events, l.all.unknown
	if v.Unsaved != nil {
		l.Problem = fmt.Sprintf("it is not known which part of the spool was already sent (%v), so some of the listed requests may be on the bus", v.Unsaved)
	}
	for _, seg := range v.Segments {
		l.Lost += seg.Lost
		l.Files = append(l.Files, fileOf(seg, l.files[seg.Name]))
	}
	for _, layer := range l.layers {
		layer.From, layer.Until = timeOf(layer.from), timeOf(layer.until)
		l.Layers = append(l.Layers, layer)
	}
	slices.SortFunc(l.Layers, func(a, b *spoolLayer) int {
		return cmp.Or(cmp.Compare(a.Run, b.Run), cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Topic, b.Topic))
	})
	for _, kept := range v.Kept {
		l.SetAside = append(l.SetAside, spoolAside(kept))
	}
	return l, nil
}

// add counts a record.
func (l *spoolListing) add(file string, body []byte) {
	if l.files[file] == nil {
		l.files[file] = new(spooled)
	}
	e, err := entry.Decode(body)
	if err != nil {
		l.all.unknown++
		l.files[file].unknown++
		return
	}
	l.all.add(e, len(body))
	l.files[file].add(e, len(body))
	l.topics[e.Topic]++
	for _, m := range e.Messages {
		run, layer := placeOf(m)
		of := spoolLayer{Topic: e.Topic, Run: run, Layer: layer}
		found := l.layers[of]
		if found == nil {
			found = &spoolLayer{Topic: e.Topic, Run: run, Layer: layer}
			l.layers[of] = found
		}
		found.Bytes += int64(len(m.Payload))
		if avro.IsEvent(m.Payload) {
			found.Events++
			_ = avro.DecodeEvents(m.Payload, func(e *oona.SeedEvent) error { // without a time of it if it cannot be decoded
				found.at(e.At)
				return nil
			}, func(e *oona.RunEnd) error {
				found.at(e.At)
				return nil
			})
			continue
		}
		found.Frames++
		if _, err := l.decoder.Decode(m.Payload, &l.frame); err == nil {
			found.at(l.frame.ObservedAt)
			if l.old != nil && l.old(e.Topic, &l.frame) {
				l.stale[l.frame.Run]++
			}
		}
	}
}

func fileOf(seg spool.Segment, of *spooled) spoolFile {
	out := spoolFile{Name: seg.Name, Bytes: seg.Bytes, Damaged: seg.Damaged, Lost: seg.Lost, Torn: seg.Torn, Doubtful: seg.DamagedEnd}
	if seg.Err != nil {
		out.Problem = seg.Err.Error()
	}
	if of != nil {
		out.Requests, out.Frames, out.Events, out.From, out.Until = of.requests, of.frames, of.events, timeOf(of.from), timeOf(of.until)
	}
	return out
}

// timeOf returns a time, or nil if there is none.
func timeOf(at oona.Micros) *time.Time {
	if at == 0 {
		return nil
	}
	t := at.Time().UTC()
	return &t
}

// span formats an interval of time.
func span(from, until *time.Time) string {
	if from == nil || until == nil {
		return "-"
	}
	return fmt.Sprintf("%s to %s", from.Format(time.RFC3339), until.Format(time.RFC3339))
}

func (l *spoolListing) print(w io.Writer) error {
	fmt.Fprintf(w, "%s: %s\n", l.Directory, &l.all)
	if l.Lost > 0 {
		fmt.Fprintf(w, "  lost by damage: %s\n", plural(l.Lost, "request"))
	}
	if l.Problem != "" {
		fmt.Fprintf(w, "  %s\n", l.Problem)
	}
	for _, f := range l.Files {
		fmt.Fprintln(w, f.line())
	}
	for _, layer := range l.Layers {
		fmt.Fprintf(w, "  %-40s %8s  %9s  observed %s  %s\n", visible(fmt.Sprintf("%s/%s", layer.Run, layer.Layer)),
			amounts(layer.Frames, layer.Events), byteSize(layer.Bytes), span(layer.From, layer.Until), visible(layer.Topic))
	}
	for _, aside := range l.SetAside {
		what := "damaged bytes, set aside"
		if aside.Record {
			what = "a request that could not be sent, set aside"
		}
		fmt.Fprintf(w, "  %s  %s: %s\n", aside.Name, byteSize(aside.Bytes), what)
	}
	return nil
}

// line describes a file in one line of text.
func (f *spoolFile) line() string {
	parts := []string{fmt.Sprintf("  %s  %s", f.Name, byteSize(f.Bytes)), plural(f.Requests, "request") + " not sent yet", amounts(f.Frames, f.Events)}
	if f.From != nil {
		parts = append(parts, "spooled "+span(f.From, f.Until))
	}
	if f.Damaged > 0 {
		parts = append(parts, fmt.Sprintf("damaged in %s: %s lost", plural(f.Damaged, "place"), plural(f.Lost, "request")))
	}
	switch {
	case f.Doubtful:
		parts = append(parts, fmt.Sprintf("ends with %s of damaged bytes that may have been an acknowledged request", byteSize(f.Torn)))
	case f.Torn > 0:
		parts = append(parts, fmt.Sprintf("ends with %s of an unfinished write", byteSize(f.Torn)))
	}
	if f.Problem != "" {
		parts = append(parts, "cannot be read: "+f.Problem)
	}
	return strings.Join(parts, ", ")
}

// byteSize formats a number of bytes.
func byteSize(bytes int64) string { return units.Base2Bytes(bytes).Round(1).String() }
