package avro

import "github.com/morphogenetic/oona"

// The names of the records of telemetry and events.
const (
	FrameName       = seedMetrics
	HealthName      = layerHealth
	PerformanceName = layerPerformance
	EventName       = seedEvent
	RunEndName      = runEnd
)

// RecordName returns the name of the schema of a record in single-object encoding, or "" if
// it is not a published one.
func RecordName(single []byte) string {
	fingerprint, err := readFraming(single)
	if v, ok := published.byFingerprint[fingerprint]; ok && err == nil {
		return v.Name
	}
	return ""
}

// IsEvent reports whether a record in single-object encoding is an event of a seed or the end of a
// run.
func IsEvent(single []byte) bool {
	name := RecordName(single)
	return name == EventName || name == RunEndName
}

// IsLatest reports whether a record in single-object encoding is of the latest version of
// its schema.
func IsLatest(single []byte) bool {
	fingerprint, err := readFraming(single)
	v, ok := published.byFingerprint[fingerprint]
	return ok && err == nil && published.latest[v.Name] == v
}

// Latest returns the latest version of a schema.
func Latest(name string) (Schema, bool) {
	v, ok := published.latest[name]
	if !ok {
		return Schema{}, false
	}
	return v.Schema, true
}

// AppendLatestRollup appends r in single-object encoding, of the latest version even if an
// earlier one would do.
func AppendLatestRollup(dst []byte, r *oona.Rollup) []byte {
	return appendRollup(dst, r, true)
}
