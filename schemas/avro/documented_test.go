package avro

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"testing"

	"github.com/morphogenetic/oona"
)

// The Python of docs/protocol.md makes a frame that we read.
func TestDocumentedEncoding(t *testing.T) {
	python := requireFastavro(t)
	page, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```python\n(.*?)```").FindSubmatch(page)
	if example == nil {
		t.Fatal("docs/protocol.md has no example in Python")
	}
	script := exec.CommandContext(t.Context(), python, "-c", string(example[1])+"\nimport sys\nsys.stdout.buffer.write(body)\n")
	script.Dir, script.Stderr = "../..", os.Stderr
	encoded, err := script.Output()
	if err != nil {
		t.Fatal(err)
	}
	var f oona.Frame
	rest, err := new(FrameDecoder).Decode(encoded, &f)
	if err != nil || len(rest) != 0 {
		t.Fatalf("%d bytes are left, %v", len(rest), err)
	}
	if err := f.Validate(oona.DefaultFrameLimits); err != nil {
		t.Error(err)
	}
	if f.Run != "mine" || !slices.Equal(f.States, []oona.State{oona.Training, oona.Dormant}) {
		t.Errorf("read as %+v", f)
	}
}
