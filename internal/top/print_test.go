package top

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

func TestLines(t *testing.T) {
	s := installation(time.UTC)
	s.Layers = s.Layers[:4]
	s.Faults = []string{"ingests: the bus is down"}
	var lines, text bytes.Buffer
	if err := s.WriteLines(&lines); err != nil {
		t.Fatal(err)
	}
	golden(t, "lines.txt", lines.String())
	if err := s.WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	if bytes.Count(text.Bytes(), []byte("\n")) != 1 {
		t.Errorf("not one line: %s", text.String())
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, text.Bytes(), "", "  "); err != nil {
		t.Fatal(err)
	}
	golden(t, "snapshot.json", indented.String())
	var none bytes.Buffer
	if err := (Snapshot{}).WriteJSON(&none); err != nil || bytes.Contains(none.Bytes(), []byte("null")) {
		t.Errorf("an empty snapshot is %s, %v", none.String(), err)
	}
	full := failing{errors.New("the disk is full")}
	for _, err := range []error{s.WriteLines(full), s.WriteJSON(full)} {
		if !errors.Is(err, full.err) {
			t.Errorf("the error is %v", err)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
