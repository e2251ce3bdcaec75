package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	out := flag.String("out", "../helm/oona/dashboards", "directory to write the dashboards to")
	pictures := flag.String("pictures", "", "directory to draw the dashboards to, as SVG, instead")
	prometheus := flag.String("prometheus", "http://127.0.0.1:9090", "Prometheus that pictures show")
	duration := flag.Duration("duration", 30*time.Minute, "time that pictures show")
	end := flag.Int64("end", time.Now().Unix(), "end of that time, in seconds since the Unix epoch")
	flag.Parse()
	err := error(nil)
	if *pictures != "" {
		err = picture(context.Background(), *prometheus, *pictures, lately(time.Unix(*end, 0), *duration))
	} else {
		err = write(*out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(dir string) error {
	files, err := generate()
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate returns the dashboards as JSON, by file name.
func generate() (map[string][]byte, error) {
	files := make(map[string][]byte)
	for name, b := range map[string]*board{
		"network.json": network(), "layer.json": layer(), "lifecycle.json": lifecycle(), "oona.json": system(),
	} {
		d, err := b.build()
		if err != nil {
			return nil, fmt.Errorf("dashboard %s: %w", name, err)
		}
		if files[name], err = encode(d); err != nil {
			return nil, fmt.Errorf("encode dashboard %s: %w", name, err)
		}
	}
	return files, nil
}

func encode(d dashboard.Dashboard) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(d)
	return b.Bytes(), err
}
