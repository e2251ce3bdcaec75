// Package workertest has the tests that every worker's configuration passes.
package workertest

import (
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// Parse reads a worker's command line and returns what it prints.
type Parse func(args ...string) (output string, err error)

// Run runs the tests.
func Run(t *testing.T, parse Parse) {
	t.Helper()
	t.Run("ErrorsNameTheFlag", func(t *testing.T) { errorsNameTheFlag(t, parse) })
	t.Run("AddressesAreChecked", func(t *testing.T) { addressesAreChecked(t, parse) })
	t.Run("SpacesInLists", func(t *testing.T) { spacesInLists(t, parse) })
}

// settings are those that the worker has by default, by the names of their flags.
func settings(t *testing.T, parse Parse) (all map[string]any) {
	t.Helper()
	effective, err := parse("--check")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(effective), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// errorsNameTheFlag: what cannot be negative, or empty, is refused, by the name of
// its flag. No other form is used, such as the name of a field.
func errorsNameTheFlag(t *testing.T, parse Parse) {
	negative := 0
	for name, value := range settings(t, parse) {
		wrong := "-1"
		if text, ok := value.(string); ok {
			if strings.Trim(text, "0123456789.hmsu") != "" || !strings.ContainsAny(text, "hms") {
				continue // not a duration
			}
			wrong = "-5s"
		} else if _, ok := value.(int); !ok {
			continue
		}
		negative++
		_, err := parse("--" + name + "=" + wrong)
		if err == nil {
			t.Errorf("--%s=%s is taken", name, wrong)
			continue
		}
		text := err.Error()
		if !strings.HasPrefix(text, "--"+name+": ") {
			t.Errorf("the error for --%s=%s is %q; it begins with the flag", name, wrong, text)
		}
		if wrong == "-5s" && !strings.Contains(text, "-5s") {
			t.Errorf("the error for --%s=%s is %q; durations are written as such", name, wrong, text)
		}
	}
	if negative < 2 {
		t.Errorf("%d settings are numbers or durations", negative)
	}
	for _, c := range []struct{ flag, value string }{
		{"--prefix", "a_b"}, {"--prefix", ""}, {"--brokers", ""}, {"--client-id", ""}, {"--admin-address", ""},
	} {
		if _, err := parse(c.flag + "=" + c.value); err == nil || !strings.HasPrefix(err.Error(), c.flag+": ") {
			t.Errorf("the error for %s=%s is %v; it begins with the flag", c.flag, c.value, err)
		}
	}
}

// addressesAreChecked: what cannot be listened at, or connected to, is refused
// before the start.
func addressesAreChecked(t *testing.T, parse Parse) {
	for _, address := range []string{"8080", "nonsense", "12:30:45", "127.0.0.1:", ":65536", "127.0.0.1:no-such-service", "300.0.0.1:80", "a b:80"} {
		for name := range settings(t, parse) {
			if name != "listen" && name != "admin-address" && name != "brokers" {
				continue
			}
			if _, err := parse("--" + name + "=" + address); err == nil || !strings.HasPrefix(err.Error(), "--"+name+": ") {
				t.Errorf("--%s=%s: the error is %v", name, address, err)
			}
		}
	}
	for _, broker := range []string{"a:9092,b:99999", "a:9092,,b:9092", ":9092", "a:0", "tcp://a:9092"} {
		if _, err := parse("--brokers=" + broker); err == nil || !strings.HasPrefix(err.Error(), "--brokers: ") {
			t.Errorf("--brokers=%s: the error is %v", broker, err)
		}
	}
}

// spacesInLists: spaces around a comma do not count.
func spacesInLists(t *testing.T, parse Parse) {
	effective, err := parse("--check", "--brokers= a:9092, b:9092 ")
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Brokers []string }
	if err := yaml.Unmarshal([]byte(effective), &got); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a:9092", "b:9092"}; !slices.Equal(got.Brokers, want) {
		t.Errorf("the brokers are %q, want %q", got.Brokers, want)
	}
}
