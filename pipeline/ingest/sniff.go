package ingest

import (
	"bytes"
	"strings"

	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

// signatures lists the first bytes of common formats, to recognise bodies that clients send with a
// wrong media type. They are tried in this order.
var signatures = []struct {
	prefix string
	what   string
	is     string // the right media type for such a body, or "" if there is none
	advice string
}{
	{"\xc3\x01", "Avro single-object encoding", mediaAvro, "send it with Content-Type: " + mediaAvro},
	{avro.ContainerMagic, "an Avro object container file", mediaAvro, "send it with Content-Type: " + mediaAvro},
	{"\x1f\x8b", "gzip", "", "send it with Content-Encoding: gzip"},
	{"\x28\xb5\x2f\xfd", "zstd", "", "send it with Content-Encoding: zstd"},
	{registryPrefix, "Avro with the prefix of a schema registry", "", "send it as " + mediaAvro + " to an ingest that has the registry (--registry-url), or in single-object encoding, which begins with c3 01"},
	{"<", "HTML or XML", "", "send " + mediaAvro + " or " + mediaJSON},
	{"{", "JSON", mediaJSON, "send it with Content-Type: " + mediaJSON},
	{"[", "JSON", mediaJSON, "send it with Content-Type: " + mediaJSON},
}

// registryPrefix is the first byte of a body from a serializer of a schema registry.
const registryPrefix = "\x00"

// withoutRegistry is the advice for events, for which ingest does not use the registry.
const withoutRegistry = "send it in single-object encoding, which begins with c3 01"

// sniff refuses a body of frames or of events whose first bytes show that it has another media
// type than declared. A valid body never begins with a signature of another type.
func sniff(body []byte, mediaType string, events bool) *intake.Refusal {
	text := bytes.TrimLeft(body, " \t\r\n")
	if len(body) == 0 || mediaType == mediaJSON && len(text) == 0 {
		return intake.Refuse(intake.ReasonUndecodable, "the body is empty; send at least one %s", one(events))
	}
	for _, s := range signatures {
		if !strings.HasPrefix(string(text[:min(len(text), 4)]), s.prefix) {
			continue
		}
		if s.is == mediaType {
			return nil
		}
		advice := s.advice
		if events && s.prefix == registryPrefix {
			advice = withoutRegistry
		}
		return intake.Refuse(reasonMediaType, "the media type of the request is %s, but the body looks like %s; %s", mediaType, s.what, advice)
	}
	return nil
}

// one returns the word for an element of a body of frames or of events.
func one(events bool) string {
	if events {
		return "event"
	}
	return "frame"
}
