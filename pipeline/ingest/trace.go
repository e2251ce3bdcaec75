package ingest

import (
	"net/http"
	"strings"

	"github.com/morphogenetic/oona/intake"
)

// traceOf returns the trace context of a request, or "" if it does not have exactly
// one, or it is not valid (W3C Trace Context, section 3.2.2).
func traceOf(h http.Header) string {
	values := h.Values(intake.TraceParent)
	if len(values) != 1 || !validTraceParent(values[0]) {
		return ""
	}
	return values[0]
}

// validTraceParent accepts the form of version 00, for later versions too:
// version-trace-parent-flags in lower-case hexadecimal.
func validTraceParent(s string) bool {
	const length = len("00-00112233445566778899aabbccddeeff-0011223344556677-01")
	if len(s) != length || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	version, trace, parent, flags := s[:2], s[3:35], s[36:52], s[53:]
	return isHex(version) && version != "ff" && isHex(flags) &&
		isHex(trace) && !isZero(trace) && isHex(parent) && !isZero(parent)
}

func isHex(s string) bool  { return strings.Trim(s, "0123456789abcdef") == "" }
func isZero(s string) bool { return strings.Trim(s, "0") == "" }
