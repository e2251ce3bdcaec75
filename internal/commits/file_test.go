package commits

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
)

func TestFileIsReadAsItWasWritten(t *testing.T) {
	file := File{Format: Format, Group: "g", Topic: "t", SavedAt: time.Date(2026, 11, 27, 1, 2, 3, 0, time.UTC), Partitions: []Partition{{0, 7, "a<>&\u2028é"}, {3, 0, ""}}}
	var text bytes.Buffer
	if err := file.Write(&text); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(&text); err != nil || !reflect.DeepEqual(got, file) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestReplace(t *testing.T) {
	name := filepath.Join(t.TempDir(), "commits.json")
	for offset := range int64(2) {
		want := File{Format: Format, Group: "g", Topic: "t", Partitions: []Partition{{0, offset, ""}}}
		if err := want.Replace(name); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Read(f); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := (File{}).Replace(filepath.Join(filepath.Dir(name), "missing", "commits.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the error is %v", err)
	}
	if all, err := os.ReadDir(filepath.Dir(name)); err != nil || len(all) != 1 {
		t.Errorf("left are %v, %v", all, err)
	}
}

func TestReadNamesTheField(t *testing.T) {
	for text, field := range map[string]string{
		`{}`:                                    "format",
		`{"format":"oona-group-2"}`:             "format",
		`{"format":"oona-group-1","topic":"t"}`: "group",
		`{"format":"oona-group-1","group":"g"}`: "topic",
		`{"format":"oona-group-1","group":"g","topic":"t","partitions":[{"partition":-1}]}`:             "partitions[0].partition",
		`{"format":"oona-group-1","group":"g","topic":"t","partitions":[{"partition":1},{"offset":1}]}`: "partitions[1].partition",
		`{"format":"oona-group-1","group":"g","topic":"t","partitions":[{"partition":1,"offset":-1}]}`:  "partitions[0].offset",
		`{"format":"oona-group-1","group":"g","topic":"t","partitions":[]} {"format":"oona-group-1"}`:   "file",
	} {
		_, err := Read(strings.NewReader(text))
		if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != field {
			t.Errorf("%s: the error is %v, want one of %s", text, err, field)
		}
	}
	for _, text := range []string{"", "[]", "{", `{"group":1}`, `{"unknown":1}`} {
		if f, err := Read(strings.NewReader(text)); err == nil {
			t.Errorf("%q was read as %+v", text, f)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"format":"oona-group-1","group":"g","topic":"t","saved_at":"2026-11-27T00:00:00Z","partitions":[{"partition":1,"offset":2,"metadata":"m"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := file.Write(&again); err != nil {
			t.Skip(err) // a year that JSON has no form for
		}
		if _, err := Read(&again); err != nil {
			t.Errorf("%q was written as %q: %v", text, again.String(), err)
		}
	})
}
