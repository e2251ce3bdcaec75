package worker

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestMistakenVariables(t *testing.T) {
	for variable, want := range map[string]string{
		"OONA_BROKERS=a:9092":     "",
		"OONA_WINDOW_LENGTH=10s":  "", // of another program, perhaps
		"OONA_REQUIRE_PYTHON=1":   "",
		"OONA_TOKEN_FILE=x":       "",
		"HOME=x":                  "",
		"OONA=x":                  "",
		"OONA_BROKRES=a:9092":     "OONA_BROKERS",
		"OONA_BROKER=a:9092":      "OONA_BROKERS",
		"OONA_WINDOW_LENGHT=10s":  "OONA_WINDOW_LENGTH",
		"OONA_SOMETHING_ELSE=x":   "OONA_SOMETHING_ELSE",
		"OONA_log_level=debug":    "OONA_log_level",
		"OONA_INGEST_PORT=8080":   "",
		"OONA_BROKERS=tcp://a:90": "", // a mistake that the flag's own check names

		// What Kubernetes sets for services called oona, oona-ingest and oona-web.
		"OONA_SERVICE_HOST=10.96.0.7":                    "",
		"OONA_SERVICE_PORT=8080":                         "",
		"OONA_SERVICE_PORT_HTTP=8080":                    "",
		"OONA_PORT=tcp://10.96.0.7:8080":                 "",
		"OONA_PORT_8080_TCP=tcp://10.96.0.7:8080":        "",
		"OONA_PORT_8080_TCP_PROTO=tcp":                   "",
		"OONA_PORT_8080_TCP_PORT=8080":                   "",
		"OONA_PORT_8080_TCP_ADDR=10.96.0.7":              "",
		"OONA_PORT_53_UDP=udp://[fd00::7]:53":            "",
		"OONA_PORT_53_UDP_ADDR=fd00::7":                  "",
		"OONA_WEB_SERVICE_HOST=10.96.0.8":                "",
		"OONA_INGEST_PORT=tcp://10.96.0.8:8080":          "Kubernetes",
		"OONA_INGEST_PORT_8080_TCP=tcp://10.96.0.8:8080": "",

		// These have the form of the name, but not of the value.
		"OONA_LISTEN_SERVICE_HOST=yes": "OONA_LISTEN_SERVICE_HOST",
		"OONA_LISTEN_PORT=8080":        "OONA_LISTEN_PORT",
		"OONA_SERVICE_PORT=http":       "OONA_SERVICE_PORT",
	} {
		got := MistakenVariables([]string{variable})
		if (len(got) == 0) != (want == "") || len(got) > 0 && !strings.Contains(got[0], want) {
			t.Errorf("%s: %q, want %q", variable, got, want)
		}
	}
}

func TestOnlyNearVariablesAreSuggested(t *testing.T) {
	known := Variables()
	for name, want := range map[string]string{
		"OONA_BROKRES":        "OONA_BROKERS",
		"OONA_LOG_LEVLE":      "OONA_LOG_LEVEL",
		"OONA_WINDOWS_LENGTH": "OONA_WINDOW_LENGTH",
		"OONA_NOPE":           "",
		"OONA_X":              "",
		"OONA_SOMETHING_ELSE": "",
	} {
		if got := suggestion(name, known); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestVariablesAreSortedAndOnce(t *testing.T) {
	if all := Variables(); !slices.IsSorted(all) || len(slices.Compact(slices.Clone(all))) != len(all) {
		t.Errorf("%q", all)
	}
}

// A flag ignores a variable that Kubernetes has set for a service, and takes the next
// source.
func TestServiceLinksAreNotRead(t *testing.T) {
	type portConfig struct {
		Config
		IngestPort int `help:"A port."`
	}
	port := func(args ...string) int {
		cfg := &portConfig{Config: Config{AdminAddress: "127.0.0.1:0"}, IngestPort: 7}
		if _, err := Parse(cfg, "probe", "Probes.", args, new(bytes.Buffer)); err != nil {
			t.Fatal(err)
		}
		return cfg.IngestPort
	}
	t.Setenv("OONA_INGEST_PORT", "8")
	if got := port(); got != 8 {
		t.Errorf("with a number the port is %d", got)
	}
	t.Setenv("OONA_INGEST_PORT", "tcp://10.96.0.8:8080")
	if got := port(); got != 7 {
		t.Errorf("with a service link the port is %d, want the default", got)
	}
	if got := port("--config", writeFile(t, "ingest-port: 9\n")); got != 9 {
		t.Errorf("with a file too the port is %d, want the file's", got)
	}
}
