package worker

import (
	"bytes"
	"strings"
	"testing"

	"github.com/alecthomas/units"
	"gopkg.in/yaml.v3"
)

type sizesConfig struct {
	Config
	Disk    units.Base2Bytes `help:"Disk."`
	Body    int64            `type:"size" help:"Body."`
	Message int              `type:"size" help:"Message."`
}

func parseSizes(args ...string) (*sizesConfig, string, error) {
	cfg := &sizesConfig{Config: Config{AdminAddress: "127.0.0.1:0"}, Disk: 3 << 30, Body: 8 << 20, Message: 1_000_000}
	var out bytes.Buffer
	_, err := Parse(cfg, "probe", "Probes.", args, &out)
	return cfg, out.String(), err
}

// A size is a number of bytes, or has units, on the command line, in the environment and in a file.
func TestSizes(t *testing.T) {
	for _, test := range []struct {
		text string
		want int64
	}{{"2000000", 2_000_000}, {"64MiB", 64 << 20}, {"1GiB512MiB", 3 << 29}, {"0", 0}, {"-1", -1}} {
		for source, parse := range map[string]func(t *testing.T) (*sizesConfig, string, error){
			"flags": func(*testing.T) (*sizesConfig, string, error) {
				return parseSizes("--disk", test.text, "--body", test.text, "--message", test.text)
			},
			"file": func(t *testing.T) (*sizesConfig, string, error) {
				return parseSizes("--config", writeFile(t, strings.ReplaceAll("disk: X\nbody: X\nmessage: X\n", "X", test.text)))
			},
			"environment": func(t *testing.T) (*sizesConfig, string, error) {
				for _, name := range []string{"OONA_DISK", "OONA_BODY", "OONA_MESSAGE"} {
					t.Setenv(name, test.text)
				}
				return parseSizes()
			},
		} {
			t.Run(source+" "+test.text, func(t *testing.T) {
				cfg, _, err := parse(t)
				if err != nil || int64(cfg.Disk) != test.want || cfg.Body != test.want || int64(cfg.Message) != test.want {
					t.Errorf("the sizes are %d, %d and %d, want %d (%v)", cfg.Disk, cfg.Body, cfg.Message, test.want, err)
				}
			})
		}
	}
	for _, flag := range []string{"--disk", "--body", "--message"} {
		for _, text := range []string{"much", "64mb", "8EiB", ""} {
			if _, _, err := parseSizes(flag + "=" + text); err == nil || !strings.HasPrefix(err.Error(), flag+": ") {
				t.Errorf("%s=%s: the error is %v, want one that names the flag", flag, text, err)
			}
		}
	}
}

// Help has sizes with units. The effective configuration has integers as they are, and other sizes with
// units if they are whole numbers of them.
func TestSizesArePrinted(t *testing.T) {
	_, help, err := parseSizes("-h")
	for _, want := range []string{"--disk=SIZE", "default 3GiB", "--body=SIZE", "default 8MiB", "--message=SIZE", "default 1000000"} {
		if err != nil || !strings.Contains(help, want) {
			t.Errorf("help has no %s (%v): %s", want, err, help)
		}
	}
	for disk, want := range map[string]any{"2000000": 2_000_000, "1.5MiB": "1536KiB", "0": 0} {
		_, effective, err := parseSizes("--disk", disk, "--body=1MiB", "--check")
		var got map[string]any
		if err == nil {
			err = yaml.Unmarshal([]byte(effective), &got)
		}
		if err != nil || got["disk"] != want || got["body"] != 1<<20 || got["message"] != 1_000_000 {
			t.Errorf("with --disk=%s the configuration has disk %v, want %v, body %v and message %v (%v)", disk, got["disk"], want, got["body"], got["message"], err)
		}
	}
}
