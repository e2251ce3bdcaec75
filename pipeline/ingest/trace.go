package ingest

import "net/http"

// traceParent is the name of the W3C header, of a request and of a record.
const traceParent = "traceparent"

// traceOf returns the request's trace context, or "" where it has none, more
// than one, or one that is not valid (W3C Trace Context, section 3.2.2).
func traceOf(h http.Header) string {
	values := h.Values(traceParent)
	if len(values) != 1 || !validTraceParent(values[0]) {
		return ""
	}
	return values[0]
}

// validTraceParent takes the form of version 00, of later versions too:
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

func isHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isZero(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] != '0' {
			return false
		}
	}
	return true
}
