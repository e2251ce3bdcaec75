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

// own lists the settings in which workers of one kind may differ.
var own = []string{
	"drain-timeout", "admin-address", "log-level", "log-format", "client-id",
	"prefix",    // compared between all workers
	"brokers",   // one common broker is enough
	"catalogue", // compared by content
	"admin-pprof",
	// Each worker may have a user of its own, and another listener of the brokers.
	"bus-tls", "bus-tls-ca-file", "bus-tls-server-name", "bus-tls-min-version", "bus-tls-cert-file", "bus-tls-key-file",
	"bus-sasl", "bus-sasl-username", "bus-sasl-password-file", "bus-sasl-token-file",
	"listen", "instance", "raw", "s3-access-key-id", "s3-secret-access-key-file", "s3-ca-file",
	"worker", "group-instance", "from-here",
}

// protections are files that may differ between workers of one kind. But all of them
// must have one, or none: otherwise the port of one is open, and that of another is not.
var protections = []string{
	"admin-tls-cert-file", "admin-tls-key-file", "admin-client-ca-file", "admin-access-file",
	"listen-tls-cert-file", "listen-tls-key-file", "listen-client-ca-file", "listen-access-file",
}

// Disagreements returns the settings that do not agree between the workers,
// wherever they run. [OneHost] finds conflicts on one host.
func Disagreements(workers []Worker) (faults []string) {
	for i, w := range workers {
		if i > 0 {
			first := workers[0]
			if a, b := w.Text("prefix"), first.Text("prefix"); a != b {
				faults = append(faults, fmt.Sprintf("%s: prefix is %s, but %s has %s", w, a, first, b))
			}
			if a, b := w.Strings("brokers"), first.Strings("brokers"); !haveCommon(a, b) {
				faults = append(faults, fmt.Sprintf("%s: brokers are %v, but %s has %v; they must share at least one", w, a, first, b))
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

// between returns the disagreements of two workers of different kinds.
func between(w, other Worker) []string {
	switch {
	case w.Kind == Ingest && other.Kind == Aggregate:
		return checkPublishTimeout(w, other)
	case w.Kind == Exporter && other.Kind == Aggregate:
		closes := other.duration("window-length") + other.duration("out-of-orderness") + other.duration("allowed-lateness")
		return Forgets(w, other.String(), closes)
	}
	return nil
}

// repeated returns the names that both workers of one kind have and must not share.
func repeated(w, like Worker) []string {
	if w.Kind != like.Kind {
		return nil
	}
	if id := w.Text("group-instance"); w.Kind == Aggregate && id != "" && id == like.Text("group-instance") {
		return []string{fmt.Sprintf("%s: group-instance is %s, which %s has, too; each member of a group needs its own", w, id, like)}
	}
	if id := w.Text("instance"); w.Kind == Ingest && id == like.Text("instance") && w.gives("instance") && like.gives("instance") {
		return []string{fmt.Sprintf("%s: instance is %s, which %s has, too; each ingest needs its own, or frames that go through the slower one are late", w, id, like)}
	}
	return nil
}

// Forgets returns a fault if the exporter removes the series of a layer before its
// next window can have closed. closes is the length of a window and the time that it
// stays open after its end; source names where these come from.
func Forgets(exporter Worker, source string, closes time.Duration) []string {
	silence := exporter.duration("series-silent-after")
	if silence >= closes {
		return nil
	}
	return []string{fmt.Sprintf("%s: series-silent-after is %s, but by %s a window closes up to %s after the end of the previous one, so series of layers disappear in between; give at least %s", exporter, silence, source, closes, closes)}
}

func haveCommon(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// checkPublishTimeout returns a fault unless ingest's publish timeout is below the
// idle horizon. A frame that is published later than that would be late.
func checkPublishTimeout(ingest, aggregate Worker) []string {
	timeout, horizon := ingest.duration("publish-timeout"), aggregate.duration("idle-horizon")
	if timeout < horizon {
		return nil
	}
	return []string{fmt.Sprintf("%s: publish-timeout is %s; give less than %s, the idle-horizon of %s, or frames that wait so long are late", ingest, timeout, horizon, aggregate)}
}

// differences returns the differing settings of two workers of one kind.
func differences(w, like Worker) (faults []string) {
	for _, name := range slices.Sorted(maps.Keys(w.settings)) {
		a, b := w.settings[name], like.settings[name]
		switch {
		case slices.Contains(protections, name):
			faults = append(faults, unprotected(name, w, like)...)
		case !slices.Contains(own, name) && !reflect.DeepEqual(a, b):
			faults = append(faults, fmt.Sprintf("%s: %s is %v, but %s has %v", w, name, a, like, b))
		}
	}
	a, b := w.Text("catalogue"), like.Text("catalogue")
	same, err := sameContent(a, b)
	if err != nil {
		faults = append(faults, fmt.Sprintf("%s: compare its catalogue with the one of %s: %v", w, like, err))
	} else if !same {
		faults = append(faults, fmt.Sprintf("%s: catalogue is %q, and its content differs from %q, which %s has", w, a, b, like))
	}
	return faults
}

// unprotected returns a fault if only one of two workers has a protection.
func unprotected(name string, w, like Worker) []string {
	with, without := w, like
	if w.Text(name) == "" {
		with, without = like, w
	}
	if (w.Text(name) == "") == (like.Text(name) == "") {
		return nil
	}
	return []string{fmt.Sprintf("%s: %s is given, but %s has none; give it to both or to neither", with, name, without)}
}

// sameContent reports whether two files are equal. The empty name is the built-in
// catalogue.
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
