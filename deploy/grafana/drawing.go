package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/morphogenetic/oona/deploy/grafana/draw"
)

// picture draws the dashboards with what a Prometheus has of the last time.
func picture(ctx context.Context, prometheus, dir string, over draw.Span) error {
	files, err := generate()
	if err != nil {
		return err
	}
	for name, text := range files {
		d, err := draw.Read(text)
		if err != nil {
			return err
		}
		values, err := d.Defaults(ctx, draw.Prometheus(prometheus), nil, over)
		if err != nil {
			return err
		}
		svg, err := d.Draw(ctx, draw.Prometheus(prometheus), values, over)
		if err != nil {
			return fmt.Errorf("draw %s: %w", name, err)
		}
		file := filepath.Join(dir, "dashboard-"+strings.TrimSuffix(name, ".json")+".svg")
		if err := os.WriteFile(file, svg, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// lately is the span of a duration that ends at a time.
func lately(to time.Time, duration time.Duration) draw.Span {
	return draw.Span{From: to.Add(-duration), To: to, Step: max(time.Second, (duration / 240).Truncate(time.Second))}
}
