package conformance

import (
	"bytes"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

//go:embed *.json
var files embed.FS

// Version is the version of the files that this package reads.
const Version = 1

// Set is the content of the files.
type Set struct {
	Frames        []GoldenFrame
	RefusedFrames []Refused
	Events        []GoldenEvent
	RefusedEvents []Refused
	Ends          []GoldenEnd
	RefusedEnds   []Refused
	Bodies        []Body
	Requests      []Exchange
	Behaviours    []Behaviour
}

// GoldenFrame is a valid frame and its encoding.
type GoldenFrame struct {
	Name  string
	Why   string
	Frame Frame
	Avro  Hex
}

// GoldenEvent is a valid event and its encoding.
type GoldenEvent struct {
	Name   string
	Why    string
	Schema string // name of the file of the schema, without .avsc
	Event  Event
	Avro   Hex
}

// GoldenEnd is a valid end of a run and its encoding.
type GoldenEnd struct {
	Name string
	Why  string
	End  End
	Avro Hex
}

// Refused is a payload that ingest refuses. It is the encoding of Frame, Event or End, or it
// consists of parts.
type Refused struct {
	Name   string
	Reason string
	Field  string
	Frame  *Frame
	Event  *Event
	End    *End
	MadeOf []Part `json:"made_of"`
	Avro   Hex
}

// Body is a body that needs a library: it is compressed, or an object container file.
type Body struct {
	Name   string
	MadeOf []Part `json:"made_of"`
	As     string // gzip, zstd, or container/CODEC
	Bytes  Hex
}

// Part is a part of a body or of a payload. One of the fields up to JSON is given: the
// encoding of a golden frame, event or end of a run, or of one that is refused, a body of
// bodies.json, or the bytes.
type Part struct {
	Frame        string
	Event        string
	End          string
	Refused      string
	RefusedEvent string `json:"refused_event"`
	RefusedEnd   string `json:"refused_end"`
	Body         string
	Text         string
	Hex          Hex
	JSON         json.RawMessage
	From         int  // index of the first byte that is used
	To           *int // index after the last byte that is used; a negative one counts from the end; nil means the end
	Times        int  // number of times that it is repeated; 0 means once
}

// Exchange is a request and its answer.
type Exchange struct {
	Name    string
	Needs   []string  // the properties that the server must have
	Before  []Request // requests that are sent before, and that must succeed
	Request Request
	Answer  Answer
}

// Request is a request to ingest.
type Request struct {
	Method, Path string
	Headers      map[string]string
	Body         []Part
	Send         *Send // if it is nil, the whole body is sent
}

// Send means that the client sends only the first bytes of a body, and then either waits or
// closes its side of the connection.
type Send struct {
	Bytes int
	Then  string
}

// Answer is the answer to a request: a status, and JSON or a problem.
type Answer struct {
	Status  int
	Headers map[string]string // "*" stands for any value
	JSON    map[string]any    // members that the answer must have
	Problem *Problem
	Records []string // golden frames that are on the bus afterwards; nil if this is not checked
}

// Problem is the body of the answer to a refused request.
type Problem struct {
	Type  string // the part after urn:oona:problem:
	Frame *int
	Event *int
	Field string
}

// Behaviour describes what a client must do after the answers of a server.
type Behaviour struct {
	Name    string
	Kind    string // kind of the records: frames, which is the default, events or ends
	Records int    // number of records that the client is given
	Seeds   int    // number of seeds of a frame; 0 means any number
	Server  []Rule // the first rule that applies determines the answer; if none does, the answer is 200
	Client  Outcome
}

// Rule is an answer of a server, with the conditions under which it gives this answer.
type Rule struct {
	When struct {
		Before int  // the request is one of the first requests, up to this number
		Has    *int // the request has this record
		More   int  // the request has more records than this
		Seeds  int  // the request has a frame with more seeds than this
		Coded  bool // the request has a Content-Encoding
	}
	Answer struct {
		Status  int
		Headers map[string]string
		JSON    map[string]any
		Problem *struct {
			Type  string
			Frame any // an index, or "index" for the index of the record that the rule is about
			Event any // the same for an event
			Field string
		}
		Text  string // a body that is not JSON
		Close bool   // there is no answer: the connection is closed
	}
}

// Outcome describes the final state of the records.
type Outcome struct {
	Accepted []int   // the records that a server has accepted; each must be accepted once
	Readings int     // total number of readings of these records; if it is not 0, records may be split
	Rejected int     // number of records that the client counts as refused for good
	Aside    int     // number of records that the client counts as put aside
	Pause    float64 // minimum number of seconds that the client waits after the last refusal
}

// Join returns the bytes of the parts, one after the other.
func (s *Set) Join(parts []Part) ([]byte, error) {
	var all []byte
	for _, p := range parts {
		content, err := s.content(p)
		if err != nil {
			return nil, err
		}
		end := len(content)
		if p.To != nil {
			if end = *p.To; end < 0 {
				end += len(content)
			}
		}
		if p.From < 0 || p.From > end || end > len(content) {
			return nil, fmt.Errorf("conformance: a part from byte %d to %d, of %d bytes", p.From, end, len(content))
		}
		all = append(all, bytes.Repeat(content[p.From:end], max(1, p.Times))...)
	}
	return all, nil
}

func (s *Set) content(p Part) ([]byte, error) {
	switch {
	case p.Frame != "":
		return bytesOf(s.Frames, p.Frame)
	case p.Event != "":
		return bytesOf(s.Events, p.Event)
	case p.End != "":
		return bytesOf(s.Ends, p.End)
	case p.Body != "":
		return bytesOf(s.Bodies, p.Body)
	case p.Refused != "":
		return bytesOf(s.RefusedFrames, p.Refused)
	case p.RefusedEvent != "":
		return bytesOf(s.RefusedEvents, p.RefusedEvent)
	case p.RefusedEnd != "":
		return bytesOf(s.RefusedEnds, p.RefusedEnd)
	}
	return slices.Concat([]byte(p.Text), []byte(p.Hex), []byte(p.JSON)), nil
}

// bytesOf returns the bytes of the entry with a name.
func bytesOf[T interface {
	entry() (name string, content Hex)
}](all []T, name string) ([]byte, error) {
	for _, e := range all {
		if own, content := e.entry(); own == name {
			return content, nil
		}
	}
	return nil, fmt.Errorf("conformance: there is no %q", name)
}

func (f GoldenFrame) entry() (name string, content Hex) { return f.Name, f.Avro }
func (e GoldenEvent) entry() (name string, content Hex) { return e.Name, e.Avro }
func (e GoldenEnd) entry() (name string, content Hex)   { return e.Name, e.Avro }
func (b Body) entry() (name string, content Hex)        { return b.Name, b.Bytes }
func (r Refused) entry() (name string, content Hex)     { return r.Name, r.Avro }

// Hex is bytes in hexadecimal.
type Hex []byte

// UnmarshalText implements [encoding.TextUnmarshaler].
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// Read returns the content of the files.
func Read() (*Set, error) {
	s := new(Set)
	var version [6]int
	for i, file := range []struct {
		name    string
		content any
	}{
		{"frames.json", &struct {
			Version *int
			Frames  *[]GoldenFrame
			Refused *[]Refused
		}{&version[0], &s.Frames, &s.RefusedFrames}},
		{"events.json", &struct {
			Version *int
			Events  *[]GoldenEvent
			Refused *[]Refused
		}{&version[1], &s.Events, &s.RefusedEvents}},
		{"ends.json", &struct {
			Version *int
			Ends    *[]GoldenEnd
			Refused *[]Refused
		}{&version[2], &s.Ends, &s.RefusedEnds}},
		{"bodies.json", &struct {
			Version *int
			Bodies  *[]Body
		}{&version[3], &s.Bodies}},
		{"requests.json", &struct {
			Version  *int
			Requests *[]Exchange
		}{&version[4], &s.Requests}},
		{"behaviour.json", &struct {
			Version    *int
			Behaviours *[]Behaviour
		}{&version[5], &s.Behaviours}},
	} {
		if err := read(file.name, file.content); err != nil {
			return nil, err
		}
		if version[i] != Version {
			return nil, fmt.Errorf("conformance: %s has version %d, this package reads version %d", file.name, version[i], Version)
		}
	}
	return s, nil
}

// read decodes a file, which must have no fields that content does not have.
func read(name string, content any) error {
	text, err := files.ReadFile(name)
	if err != nil {
		return fmt.Errorf("conformance: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(content); err != nil {
		return fmt.Errorf("conformance: %s: %w", name, err)
	}
	return nil
}
