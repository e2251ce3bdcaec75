package avro

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/twmb/avro"

	"github.com/morphogenetic/oona"
)

// The hand-written encoders are tied to schemas by these fingerprints: a file
// that was changed in shape, rather than added as a new version, fails here.
func TestPublishedFingerprints(t *testing.T) {
	want := []struct {
		name        string
		version     int
		fingerprint uint64
	}{
		{archiveRecord, 1, 0x1205d87b07e1c1ae},
		{runEnd, 1, runEndV1},
		{seedEvent, 1, seedEventV1},
		{seedEvent, 2, seedEventV2},
		{incarnationStart, 1, incarnationStartV1},
		{layerHealth, 1, layerHealthV1},
		{layerHealth, 2, layerHealthV2},
		{layerPerformance, 1, layerPerformanceV1},
		{layerPerformance, 2, layerPerformanceV2},
		{seedMetrics, 1, seedMetricsV1},
		{tick, 1, tickV1},
		{windowConfiguration, 1, windowConfigurationV1},
		{windowConfiguration, 2, windowConfigurationV2},
		{windowConfiguration, 3, windowConfigurationV3},
	}
	got := Schemas()
	if len(got) != len(want) {
		t.Fatalf("%d schemas are published, the test knows %d", len(got), len(want))
	}
	for i, w := range want {
		if g := got[i]; g.Name != w.name || g.Version != w.version || g.Fingerprint != w.fingerprint {
			t.Errorf("published is %s version %d, fingerprint %016x; want %s version %d, %016x", g.Name, g.Version, g.Fingerprint, w.name, w.version, w.fingerprint)
		}
	}
}

func TestBadSchemaDirectories(t *testing.T) {
	const record = `{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}`
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no version":    {map[string]string{"r.avsc": record}, "NAME.vN.avsc"},
		"version word":  {map[string]string{"r.vx.avsc": record}, "NAME.vN.avsc"},
		"not a schema":  {map[string]string{"r.v1.avsc": `{"type": "rec"}`}, "r.v1.avsc"},
		"same twice":    {map[string]string{"r.v1.avsc": record, "r.v2.avsc": record}, "has the fingerprint of"},
		"field without": {map[string]string{"r.v1.avsc": record, "r.v2.avsc": strings.ReplaceAll(record, `"a"`, `"b"`)}, "reading version 1"},
	} {
		dir := fstest.MapFS{}
		for file, text := range c.files {
			dir[file] = &fstest.MapFile{Data: []byte(text)}
		}
		if _, err := load(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want one with %q", name, err, c.want)
		}
	}
}

// incompatible returns why readers of version a cannot read version b, or the other way
// round.
func incompatible(a, b *version) error {
	return errors.Join(avro.CheckCompatibility(a.parsed, b.parsed), avro.CheckCompatibility(b.parsed, a.parsed))
}

// withSynthetic returns the published schemas and the ones in testdata/synthetic.
func withSynthetic(t testing.TB) *registry {
	t.Helper()
	r, err := load(files, os.DirFS("testdata/synthetic"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestVersionsAreFullyCompatible(t *testing.T) {
	pairs := 0
	for _, r := range []*registry{published, withSynthetic(t)} {
		for _, a := range r.byFingerprint {
			for _, b := range r.byFingerprint {
				if a.Name != b.Name || a.Version > b.Version {
					continue
				}
				pairs++
				if err := incompatible(a, b); err != nil {
					t.Errorf("%s versions %d and %d: %v", a.Name, a.Version, b.Version, err)
				}
			}
		}
	}
	if want := 2*len(Schemas()) + 2; pairs < want {
		t.Errorf("%d pairs were checked, want %d at least", pairs, want)
	}
}

// A check that finds nothing must be able to find something.
func TestIncompatibleVersionsAreFound(t *testing.T) {
	latest := published.latest[tick]
	for name, text := range map[string]string{
		"added without default": strings.Replace(latest.Text, `"fields": [`, `"fields": [{"name": "partition", "type": "int"},`, 1),
		"narrowed":              strings.Replace(latest.Text, `{"type": "long", "logicalType": "timestamp-micros"}`, `"int"`, 1),
		"renamed":               strings.Replace(latest.Text, `"worker"`, `"writer"`, 1),
	} {
		if text == latest.Text {
			t.Fatalf("%s: the replacement did not hit", name)
		}
		changed := &version{parsed: avro.MustParse(text)}
		if incompatible(latest, changed) == nil {
			t.Errorf("%s: passes as compatible", name)
		}
	}
}

func TestFrameOfAnotherVersion(t *testing.T) {
	schemas := withSynthetic(t)
	var v0 *version
	for _, v := range schemas.byFingerprint {
		if v.Name == seedMetrics && v.Version == 0 {
			v0 = v
		}
	}
	native := nativeFrame(sampleFrame())
	delete(native, "timeline")
	data := writeWithGoavro(t, v0, native)
	want := sampleFrame()
	want.Timeline = ""

	d := FrameDecoder{schemas: schemas}
	var got oona.Frame
	rest, err := d.Decode(append(data, "after"...), &got)
	if err != nil {
		t.Fatal(err)
	}
	if string(rest) != "after" {
		t.Errorf("rest is %q", rest)
	}
	equalFrames(t, &got, want)

	// The same decoder can still decode the latest version.
	if _, err := d.Decode(AppendFrame(nil, sampleFrame()), &got); err != nil {
		t.Fatal(err)
	}
	equalFrames(t, &got, sampleFrame())

	var plain FrameDecoder
	if _, err := plain.Decode(data, &got); !errors.Is(err, ErrFingerprint) {
		t.Errorf("without the synthetic schema: %v", err)
	}
	limited := FrameDecoder{schemas: schemas, Limits: oona.FrameLimits{Seeds: 3}}
	if _, err := limited.Decode(data, &got); !errors.Is(err, oona.ErrTooLarge) {
		t.Errorf("above the limit: %v", err)
	}
	tensors, _ := native["tensors"].([]any)
	tensor, _ := tensors[0].(map[string]any)
	tensor["shape"] = slices.Repeat([]any{int64(1)}, oona.MaxDimensions+1)
	if _, err := d.Decode(writeWithGoavro(t, v0, native), &got); !errors.Is(err, oona.ErrTooLarge) {
		t.Errorf("a shape of too many dimensions: %v", err)
	}
	for n := range len(data) {
		if _, err := d.Decode(data[:n:n], &got); !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}
