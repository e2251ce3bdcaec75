package configcheck

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"time"
)

// own are the settings in which workers of one kind may differ. In all others
// they are replicas of each other.
var own = []string{
	"drain-timeout", "admin-address", "log-level", "log-format", "client-id",
	"prefix",    // compared between all kinds
	"brokers",   // one in common is enough
	"catalogue", // its content counts
	"listen", "instance", "raw", "s3-access-key-id", "s3-secret-access-key-file", "s3-ca-file",
	"worker", "group-instance", "from-here",
}

// Disagreements says in what the workers do not fit together, wherever they run.
// [OneHost] says what is wrong with them on one host.
func Disagreements(workers []Worker) (faults []string) {
	note := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for i, w := range workers {
		if i > 0 {
			first := workers[0]
			if a, b := w.Text("prefix"), first.Text("prefix"); a != b {
				note("%s: prefix is %s, and that of %s is %s", w, a, first, b)
			}
			if !haveCommon(w.Strings("brokers"), first.Strings("brokers")) {
				note("%s: brokers are %v, and %s has none of them", w, w.Strings("brokers"), first)
			}
		}
		for _, other := range workers[:i] {
			faults = append(faults, between(w, other)...)
			faults = append(faults, between(other, w)...)
			faults = append(faults, repeated(w, other)...)
		}
		if k := slices.IndexFunc(workers[:i], func(other Worker) bool { return other.Kind == w.Kind }); k >= 0 {
			faults = append(faults, differences(w, workers[k])...)
		}
	}
	return faults
}

// between are faults of a worker of one kind beside one of another.
func between(w, other Worker) []string {
	switch {
	case w.Kind == Ingest && other.Kind == Aggregate:
		return outlasted(w, other)
	case w.Kind == Exporter && other.Kind == Aggregate:
		closes := other.duration("window-length") + other.duration("out-of-orderness") + other.duration("allowed-lateness")
		return Forgets(w, other.String(), closes)
	}
	return nil
}

// repeated are names that two workers of one kind are given, and must not share.
func repeated(w, like Worker) []string {
	if w.Kind != like.Kind {
		return nil
	}
	if id := w.Text("group-instance"); w.Kind == Aggregate && id != "" && id == like.Text("group-instance") {
		return []string{fmt.Sprintf("%s: group-instance is %s, as that of %s; each member needs its own", w, id, like)}
	}
	if id := w.Text("instance"); w.Kind == Ingest && id == like.Text("instance") && w.gives("instance") && like.gives("instance") {
		return []string{fmt.Sprintf("%s: instance is %s, as that of %s; each ingest needs its own, or frames that come through the slower of the two are late", w, id, like)}
	}
	return nil
}

// Forgets says where an exporter forgets a layer before its next window has closed,
// which takes a window's length and what it stays open for. whose says whose
// windows they are.
func Forgets(exporter Worker, whose string, closes time.Duration) []string {
	silence := exporter.duration("series-silent-after")
	if silence >= closes {
		return nil
	}
	return []string{fmt.Sprintf("%s: series-silent-after is %s, and a window of %s closes %s after the one before ended: layers disappear in between; give at least that", exporter, silence, whose, closes)}
}

func haveCommon(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// outlasted: a frame whose publication takes as long as the idle horizon is late.
func outlasted(ingest, aggregate Worker) []string {
	timeout, horizon := ingest.duration("publish-timeout"), aggregate.duration("idle-horizon")
	if timeout < horizon {
		return nil
	}
	return []string{fmt.Sprintf("%s: publish-timeout is %s, as long as the idle-horizon of %s (%s) or longer: frames of a producer that waits would be late", ingest, timeout, aggregate, horizon)}
}

// differences are those between workers of one kind.
func differences(w, like Worker) (faults []string) {
	for _, name := range slices.Sorted(maps.Keys(w.settings)) {
		if a, b := w.settings[name], like.settings[name]; !slices.Contains(own, name) && !reflect.DeepEqual(a, b) {
			faults = append(faults, fmt.Sprintf("%s: %s is %v, and that of %s is %v", w, name, a, like, b))
		}
	}
	a, b := w.Text("catalogue"), like.Text("catalogue")
	same, err := sameContent(a, b)
	if err != nil {
		faults = append(faults, fmt.Sprintf("%s: compare its catalogue with that of %s: %v", w, like, err))
	} else if !same {
		faults = append(faults, fmt.Sprintf("%s: its catalogue %q has another content than that of %s, %q", w, a, like, b))
	}
	return faults
}

// sameContent compares two files; no name is the built-in one.
func sameContent(a, b string) (bool, error) {
	if a == b {
		return true, nil
	}
	if a == "" || b == "" {
		return false, nil
	}
	of, err := os.ReadFile(a)
	if err != nil {
		return false, err
	}
	other, err := os.ReadFile(b)
	return bytes.Equal(of, other), err
}
