package ingest

import (
	"bytes"
	"strings"

	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/schemas/avro"
)

// signatures are the first bytes of bodies that clients send with a wrong media type,
// in the order in which they are tried.
var signatures = []struct {
	prefix string
	what   string
	is     string // the media type for such a body; "": it has no media type
	advice string
}{
	{"\xc3\x01", "Avro single-object encoding", mediaAvro, "send it with Content-Type: " + mediaAvro},
	{avro.ContainerMagic, "an Avro object container file", mediaAvro, "send it with Content-Type: " + mediaAvro},
	{"\x1f\x8b", "gzip", "", "send it with Content-Encoding: gzip"},
	{"\x28\xb5\x2f\xfd", "zstd", "", "send it with Content-Encoding: zstd"},
	{"\x00", "Avro with the prefix of a schema registry", "", "send it as " + mediaAvro + " to an ingest that has the registry (--registry-url), or in single-object encoding, which begins with c3 01"},
	{"<", "HTML or XML", "", "send frames as " + mediaAvro + " or " + mediaJSON},
	{"{", "JSON", mediaJSON, "send it with Content-Type: " + mediaJSON},
	{"[", "JSON", mediaJSON, "send it with Content-Type: " + mediaJSON},
}

// sniff refuses a body whose first bytes show that it does not have its media type. No
// valid body of either media type begins with another signature.
func sniff(body []byte, mediaType string) *intake.Refusal {
	text := bytes.TrimLeft(body, " \t\r\n")
	if len(body) == 0 || mediaType == mediaJSON && len(text) == 0 {
		return intake.Refuse(intake.ReasonUndecodable, "the body is empty; send at least one frame")
	}
	for _, s := range signatures {
		if !strings.HasPrefix(string(text[:min(len(text), 4)]), s.prefix) {
			continue
		}
		if s.is == mediaType {
			return nil
		}
		return intake.Refuse(reasonMediaType, "the body is sent as %s, but looks like %s; %s", mediaType, s.what, s.advice)
	}
	return nil
}
