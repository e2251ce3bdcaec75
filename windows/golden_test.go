package windows

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
)

var update = flag.Bool("update", false, "rewrite testdata/golden*.txt: only if the content of rollups is meant to change")

// TestGolden folds a fixed log and compares the hashes of its rollups with those in a file. They must
// not depend on the instructions that the compiler uses. Run the test with GOAMD64=v1 and v3.
func TestGolden(t *testing.T) {
	for reducer, name := range []string{1: "golden.txt", 2: "golden-2.txt"} {
		if reducer > 0 {
			t.Run(fmt.Sprint("reducer ", reducer), func(t *testing.T) { testGolden(t, int32(reducer), name) })
		}
	}
}

func testGolden(t *testing.T, reducer int32, name string) {
	cfg := DefaultConfig()
	cfg.MaxLayers, cfg.Reducer = 3, reducer
	_, rollups := foldAll(t, cfg, goldenLog())
	var b strings.Builder
	for i := range rollups {
		r := &rollups[i]
		fmt.Fprintf(&b, "%d.%d %s/%s/%s %s [%d,%d) frames=%d duplicates=%d %016x\n", r.Trigger.Offset, r.Trigger.Index, r.Run, r.Timeline, r.Layer, r.Group, r.Start, r.End, r.Frames, r.Duplicates, r.Hash)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wantLines, gotLines := strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")
	for i := range min(len(wantLines), len(gotLines)) {
		if gotLines[i] != wantLines[i] {
			t.Fatalf("line %d:\n got %s\nwant %s", i+1, gotLines[i], wantLines[i])
		}
	}
	if len(gotLines) != len(wantLines) {
		t.Fatalf("%d rollups, %d on file", len(gotLines)-1, len(wantLines)-1)
	}
}

// splitmix is a generator of random integers (Steele, Lea, Flood 2014). Unlike the generators of
// math/rand, it does not depend on the release of Go. The values made from it do not depend on the
// processor, either.
type splitmix uint64

func (s *splitmix) below(n uint64) uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return (z ^ z>>31) % n
}

// goldenLog returns a log of two runs over two minutes. One of them has two ranks. The log has
// repeats, frames out of order, ticks, and a run that ends early.
func goldenLog() []Record {
	var s splitmix = 42
	var log []Record
	for i := range 2400 {
		at := origin + oona.Micros(i)*50_000
		r := Record{Offset: int64(i), AppendedAt: at, Path: fmt.Sprintf("ingest-%d", s.below(2)), Checksum: uint64(i)}
		switch k := s.below(30); {
		case k == 0:
		case k == 1 && i > 0:
			again := log[uint64(i)-1-s.below(uint64(min(i, 100)))]
			r.Frame, r.Checksum = again.Frame, again.Checksum
		default:
			r.Frame = goldenFrame(&s, int64(i), at)
			if i > 1200 && r.Frame.Run == "run-1" {
				r.Frame = nil
			}
		}
		log = append(log, r)
	}
	return log
}

func goldenFrame(s *splitmix, i int64, at oona.Micros) *oona.Frame {
	f := &oona.Frame{
		Run: oona.RunID(fmt.Sprintf("run-%d", s.below(2))), Layer: oona.LayerID(fmt.Sprintf("layer-%d", s.below(4))),
		Producer: oona.ProducerID(fmt.Sprintf("trainer-%d", s.below(3))), Sequence: i, Step: i / 7,
		ObservedAt: at - oona.Micros(s.below(3_000_000)),
	}
	if f.Run == "run-0" && s.below(2) == 0 {
		f.Timeline = "rank-1"
	}
	first, n := s.below(3), 1+s.below(40)
	for j := range n {
		f.Seeds = append(f.Seeds, oona.SeedID(first+j))
		f.States = append(f.States, oona.State(s.below(uint64(oona.StateCount))))
	}
	for _, name := range []string{"loss", "norm", "gain", "blend"} {
		c := oona.Column{Name: name}
		for range n {
			c.Values = append(c.Values, goldenValue(s, name))
		}
		f.Metrics = append(f.Metrics, c)
	}
	return f
}

func goldenValue(s *splitmix, name string) float32 {
	fraction := float32(s.below(1<<24)) / (1 << 24)
	switch {
	case s.below(50) == 0:
		return float32(math.NaN())
	case s.below(200) == 0:
		return float32(math.Inf(1 - 2*int(s.below(2))))
	case name == "loss":
		return fraction / (0.001 + float32(s.below(1000))) // over many octaves
	case name == "gain":
		return fraction - 0.5
	case name == "blend":
		return float32(s.below(5)) / 4
	}
	return 1000 + fraction
}
