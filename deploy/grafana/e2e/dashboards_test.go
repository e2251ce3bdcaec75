package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona/deploy/grafana/draw"
)

// TestDashboards has two real Prometheus scrape Oona during a run with known faults, and
// sends them the queries of all panels.
func TestDashboards(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute) // on a busy machine; else less than two
	defer cancel()
	w := newWorld(t, ctx)
	boards := read(t)
	if dir := os.Getenv("DASHBOARD_PICTURES"); dir != "" { // of a longer run
		pictures(t, ctx, w, boards, dir)
		return
	}
	t.Run("queries", func(t *testing.T) { checkQueries(t, ctx, w, boards) })
	t.Run("numbers", func(t *testing.T) { checkNumbers(t, ctx, w, boards) })
	t.Run("sick first", func(t *testing.T) { checkSick(t, ctx, w, boards) })
	t.Run("links", func(t *testing.T) { checkLinks(t, ctx, w, boards) })
	t.Run("replicas", func(t *testing.T) { checkReplicas(t, ctx, w, boards) })
}

func read(t *testing.T) map[string]*draw.Dashboard {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(repository, "deploy/helm/oona/dashboards/*.json"))
	if err != nil || len(paths) != 4 {
		t.Fatalf("%d dashboards: %v", len(paths), err)
	}
	all := make(map[string]*draw.Dashboard)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d, err := draw.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		all[d.UID] = d
	}
	return all
}

// pictures draws the dashboards, as they are when they are opened.
func pictures(t *testing.T, ctx context.Context, w *world, boards map[string]*draw.Dashboard, dir string) {
	t.Helper()
	for uid, d := range boards {
		values, err := d.Defaults(ctx, w.native, nil, w.over)
		if err != nil {
			t.Fatal(err)
		}
		picture, err := d.Draw(ctx, w.native, values, w.over)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "dashboard-"+strings.TrimPrefix(uid, "oona-")+".svg"), picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
