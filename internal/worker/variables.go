package worker

import (
	_ "embed"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// variablesFile lists the variables of all workers and of the command oona. They are
// listed together, as one environment often serves several of them.
//
//go:embed variables.txt
var variablesFile string

// Variables returns the OONA_... variables of the flags of all of Oona's programs.
func Variables() []string { return strings.Fields(variablesFile) }

// testVariables matches the variables of the project's tests and of make.
var testVariables = regexp.MustCompile(`^OONA_((BENCH_)?KAFKA|REQUIRE_\w+|TEST_\w+|UPDATE_GOLDEN|PEERS|EMBEDDED_LOCK|LOCALKAFKA)$`)

// clientVariables are read by trainers, for example examples/digits.
var clientVariables = []string{"OONA_TOKEN_FILE", "OONA_CA_FILE"}

// MistakenVariables returns a warning for each OONA_... variable that has no effect and
// was probably meant to have one. environ has the form of os.Environ.
func MistakenVariables(environ []string) (warnings []string) {
	known := Variables()
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		switch {
		case !strings.HasPrefix(name, "OONA_") || testVariables.MatchString(name), slices.Contains(clientVariables, name):
		case slices.Contains(known, name):
			if isServiceURL(name, value) {
				warnings = append(warnings, fmt.Sprintf("%s is ignored, as Kubernetes has set it for a service; set enableServiceLinks: false for the pod", name))
			}
		case !isServiceLink(name, value):
			warnings = append(warnings, fmt.Sprintf("%s is ignored, as no flag reads it%s", name, suggestion(name, known)))
		}
	}
	slices.Sort(warnings)
	return warnings
}

// For a service called oona-x, Kubernetes sets OONA_X_SERVICE_HOST and other variables
// in the pods of its namespace. These patterns match their names.
var (
	serviceHost = regexp.MustCompile(`_SERVICE_HOST$|_PORT_\d+_(TCP|UDP|SCTP)_ADDR$`)
	servicePort = regexp.MustCompile(`_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)_PORT$`)
	serviceKind = regexp.MustCompile(`_PORT_\d+_(TCP|UDP|SCTP)_PROTO$`)
	serviceURL  = regexp.MustCompile(`_PORT(_\d+_(TCP|UDP|SCTP))?$`)
)

// isServiceLink reports whether Kubernetes has set a variable for a service.
func isServiceLink(name, value string) bool {
	switch {
	case serviceHost.MatchString(name):
		_, err := netip.ParseAddr(value)
		return err == nil
	case servicePort.MatchString(name):
		_, err := strconv.ParseUint(value, 10, 16)
		return err == nil
	case serviceKind.MatchString(name):
		return isProtocol(value)
	}
	return isServiceURL(name, value)
}

// isServiceURL reports whether Kubernetes has set a variable to the URL of a service,
// for example OONA_INGEST_PORT=tcp://10.0.0.1:8080.
func isServiceURL(name, value string) bool {
	if !serviceURL.MatchString(name) {
		return false
	}
	u, err := url.Parse(value)
	return err == nil && isProtocol(u.Scheme) && u.Port() != ""
}

func isProtocol(text string) bool { return slices.Contains([]string{"tcp", "udp", "sctp"}, text) }

// withoutServiceLinks makes flags ignore the variables that Kubernetes has set.
func withoutServiceLinks(k *kong.Kong) error {
	everyFlag(k.Model.Node, func(flag *kong.Flag) {
		isLink := func(name string) bool { return isServiceURL(name, os.Getenv(name)) }
		flag.Envs = slices.DeleteFunc(slices.Clone(flag.Envs), isLink)
		flag.Tag.Envs = slices.DeleteFunc(slices.Clone(flag.Tag.Envs), isLink)
	})
	return nil
}

// suggestion returns a question with the known variable that is most similar to name,
// or "".
func suggestion(name string, known []string) string {
	// At most a third of the characters may be wrong, or short names suggest anything.
	const most = 4
	best, edits := "", 1+min(most, len(strings.TrimPrefix(name, "OONA_"))/3)
	for _, k := range known {
		if n := distance(name, k); n < edits {
			best, edits = k, n
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance returns the Levenshtein distance of two texts: the number of characters to
// insert, delete or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
