package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

const checkedIn = "../helm/oona/dashboards"

// The dashboards in the chart are what the code makes. Else run make dashboards.
func TestCheckedIn(t *testing.T) {
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(checkedIn, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != len(files) {
		t.Errorf("%s has %d files, and there are %d dashboards", checkedIn, len(found), len(files))
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(checkedIn, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code makes: run make dashboards", name)
		}
	}
}

// Each file is a dashboard with no field that Grafana does not know, and is the same after
// it was read and written again.
func TestStrict(t *testing.T) {
	for name, text := range files(t) {
		if err := new(dashboard.Dashboard).UnmarshalJSONStrict(text); unknown(err) {
			t.Errorf("%s: %v", name, err)
		}
		var d dashboard.Dashboard
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		again, err := encode(d)
		if err != nil {
			t.Fatal(err)
		}
		if !equalJSON(t, text, again) {
			t.Errorf("%s differs after it was read", name)
		}
	}
}

// unknown returns whether an error of UnmarshalJSONStrict is one. The SDK's version 0.0.22
// returns an empty list of errors, which is not nil, if there are none, and then leaves out
// the field; so it is no good for reading.
func unknown(err error) bool {
	var faults cog.BuildErrors
	return err != nil && !(errors.As(err, &faults) && len(faults) == 0)
}

// files reads the dashboards in the chart.
func files(t *testing.T) map[string][]byte {
	t.Helper()
	plugins.RegisterDefaultPlugins()
	paths, err := filepath.Glob(filepath.Join(checkedIn, "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no dashboards in %s: %v", checkedIn, err)
	}
	all := make(map[string][]byte)
	for _, path := range paths {
		if all[filepath.Base(path)], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func equalJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &y); err != nil {
		t.Fatal(err)
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return bytes.Equal(p, q)
}
