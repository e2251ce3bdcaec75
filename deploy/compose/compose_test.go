package compose

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// workers are the services that are workers of Oona, and their binaries.
var workers = []string{"ingest", "aggregate", "exporter"}

// load reads compose.yaml as docker compose does. It fails on keys that the
// specification does not have.
func load(t *testing.T, environment ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"compose.yaml"}, cli.WithEnv(environment), cli.WithProfiles([]string{"*"}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// build builds the binaries and returns their directory.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", "build", "-C", "../..", "-o", dir+"/", "./cmd/...").CombinedOutput()
	if err != nil {
		t.Fatalf("build the binaries: %v\n%s", err, out)
	}
	return dir
}

// command returns the command of a service, with its environment and nothing of ours.
func command(ctx context.Context, bin string, service types.ServiceConfig, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, filepath.Base(repository(service))), args...)
	cmd.Env = []string{"HOME=/", "TMPDIR=" + os.TempDir()}
	for name, value := range service.Environment {
		if value != nil {
			cmd.Env = append(cmd.Env, name+"="+*value)
		}
	}
	return cmd
}

// repository returns an image without its tag.
func repository(service types.ServiceConfig) string {
	name, _, _ := strings.Cut(service.Image, ":")
	return name
}

func TestImagesHaveOneVersion(t *testing.T) {
	project := load(t, "IMAGE_REPOSITORY=registry.example/oona", "IMAGE_TAG=1.2.3")
	for _, name := range append([]string{"topics"}, workers...) {
		service, binary := project.Services[name], name
		if name == "topics" {
			binary = "oona"
		}
		if want := "registry.example/oona/" + binary + ":1.2.3"; service.Image != want {
			t.Errorf("%s: the image is %s, want %s", name, service.Image, want)
		}
		if got := service.Build.Args["BINARY"]; got == nil || *got != binary {
			t.Errorf("%s: it is built with BINARY=%v", name, got)
		}
	}
}

func TestTagsAreFixed(t *testing.T) {
	for name, service := range load(t).Services {
		if _, tag, _ := strings.Cut(service.Image, ":"); tag == "" || tag == "latest" {
			t.Errorf("%s: the image is %s; give it a version", name, service.Image)
		}
	}
}

// Nothing is open to other machines, and Oona runs with no more rights than it needs.
func TestRights(t *testing.T) {
	project := load(t)
	for name, service := range project.Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is published on %q", name, port.Published, port.HostIP)
			}
		}
	}
	for _, name := range append([]string{"topics"}, workers...) {
		service := project.Services[name]
		if !service.ReadOnly || service.Privileged || !slices.Equal(service.CapDrop, []string{"ALL"}) ||
			len(service.CapAdd) > 0 || !slices.Contains(service.SecurityOpt, "no-new-privileges:true") || service.User != "" {
			t.Errorf("%s has rights that it does not need", name)
		}
	}
}

// The workers stop before they are killed, and Go's memory limit is below the container's.
func TestLimits(t *testing.T) {
	project := load(t)
	for _, name := range workers {
		service := project.Services[name]
		if service.StopGracePeriod == nil || time.Duration(*service.StopGracePeriod) <= 20*time.Second {
			t.Errorf("%s: the grace period %v is not above the drain timeout", name, service.StopGracePeriod)
		}
		var limit int64
		if text := service.Environment["GOMEMLIMIT"]; text == nil {
			t.Errorf("%s has no GOMEMLIMIT", name)
		} else if _, err := fmt.Sscanf(*text, "%dMiB", &limit); err != nil {
			t.Errorf("%s: GOMEMLIMIT is %s", name, *text)
		}
		if share := float64(limit<<20) / float64(service.MemLimit); share < 0.85 || share > 0.91 {
			t.Errorf("%s: GOMEMLIMIT is %.2f of mem_limit, want nine tenths", name, share)
		}
	}
}

// Each service is valid for its binary.
func TestWorkersCheckTheirSettings(t *testing.T) {
	project, bin := load(t), build(t)
	for _, name := range workers {
		service := project.Services[name]
		out, err := command(t.Context(), bin, service, append(slices.Clone(service.Command), "--check")...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		for line := range strings.Lines(string(out)) {
			// Docker publishes the port on loopback only.
			if strings.Contains(line, "warning") && !strings.Contains(line, "--listen: is :8080") {
				t.Errorf("%s: %s", name, line)
			}
		}
		check := service.HealthCheck.Test
		if len(check) < 3 || !slices.Equal(check[:3], []string{"CMD", "/ko-app/" + name, "--check-ready"}) {
			t.Errorf("%s: the health check is %q", name, check)
			continue
		}
		if admin := check[3]; !slices.Contains(service.Command, admin) {
			t.Errorf("%s: the health check asks %s, and the worker has %q", name, admin, service.Command)
		}
	}
}

func TestPrometheusScrapesTheWorkers(t *testing.T) {
	project := load(t)
	var config struct {
		ScrapeConfigs []struct {
			StaticConfigs []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, "prometheus.yml", &config)
	var want []string
	for _, name := range workers {
		for _, arg := range project.Services[name].Command {
			if port, ok := strings.CutPrefix(arg, "--admin-address="); ok {
				want = append(want, name+port)
			}
		}
	}
	if got := config.ScrapeConfigs[0].StaticConfigs[0].Targets; len(want) != len(workers) || !slices.Equal(got, want) {
		t.Errorf("Prometheus scrapes %q, the workers serve on %q", got, want)
	}
}

// Grafana's data sources are services of this file.
func TestDataSources(t *testing.T) {
	project := load(t)
	var config struct {
		DataSources []struct{ Name, URL string }
	}
	readYAML(t, "grafana/datasources.yml", &config)
	if len(config.DataSources) == 0 {
		t.Error("there are none")
	}
	for _, source := range config.DataSources {
		host, _, _ := strings.Cut(strings.TrimPrefix(source.URL, "http://"), ":")
		if _, ok := project.Services[host]; !ok {
			t.Errorf("%s is at %s, which is no service", source.Name, source.URL)
		}
	}
}

// Grafana reads the dashboards from where the chart's are mounted.
func TestDashboardsAreMounted(t *testing.T) {
	project := load(t)
	var config struct {
		Providers []struct{ Options struct{ Path string } }
	}
	readYAML(t, "grafana/dashboards.yml", &config)
	if len(config.Providers) != 1 {
		t.Fatalf("%d providers", len(config.Providers))
	}
	for _, mount := range project.Services["grafana"].Volumes {
		if mount.Target != config.Providers[0].Options.Path {
			continue
		}
		files, err := filepath.Glob(filepath.Join(mount.Source, "*.json"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no dashboards: %v", mount.Source, err)
		}
		return
	}
	t.Errorf("nothing is mounted at %s", config.Providers[0].Options.Path)
}

// promtool checks the configuration of Prometheus, as far as its version knows it.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("OONA_REQUIRE_PROMTOOL") != "" {
			t.Fatal(err)
		}
		t.Skip("there is no promtool, which comes with Prometheus")
	}
	config, err := os.ReadFile("prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := filepath.Abs("../prometheus")
	if err != nil {
		t.Fatal(err)
	}
	text := string(config)
	for _, name := range []string{"oona-alerts.yml", "network-alerts.yml"} {
		text = strings.ReplaceAll(text, "/etc/prometheus/"+name, filepath.Join(rules, name))
	}
	for _, later := range []string{"scrape_native_histograms: true", "always_scrape_classic_histograms: true"} {
		if !strings.Contains(text, later) {
			t.Errorf("prometheus.yml has no %s", later)
		}
		text = strings.ReplaceAll(text, later, "# "+later) // promtool 2.42 does not know it
	}
	path := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "config", path).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
