// Package commits keeps the commits of a consumer group in a file and restores them.
//
// Oona's aggregators commit late on purpose, and the metadata of a commit has state that a replay
// cannot rebuild. So, if a group was renamed or deleted or has expired, it is not enough to set its
// offsets: its commits must be restored from such a file.
package commits

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
)

// File is the content of a file of commits, in JSON.
type File struct {
	Format     string      `json:"format"` // the constant Format
	Group      string      `json:"group"`
	Topic      string      `json:"topic"`
	SavedAt    time.Time   `json:"saved_at"`
	Partitions []Partition `json:"partitions"` // the partitions that have a commit, ordered by number
}

// Partition is the commit of one partition.
type Partition struct {
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Metadata  string `json:"metadata"`
}

// Format is the value of the first field of each file.
const Format = "oona-group-1"

// Save returns the commits of a group, which may be none.
func Save(ctx context.Context, b bus.Bus, group, topic string) (File, error) {
	held, err := b.Commits(ctx, group, topic)
	if err != nil {
		return File{}, err
	}
	f := File{Format: Format, Group: group, Topic: topic, SavedAt: time.Now().UTC().Truncate(time.Second), Partitions: []Partition{}}
	for i, c := range held {
		if c.Offset != bus.NoOffset {
			f.Partitions = append(f.Partitions, Partition{int32(i), c.Offset, c.Metadata})
		}
	}
	return f, nil
}

// Write writes the file.
func (f File) Write(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(f)
}

// Replace writes the file under the given name. An existing file is replaced only after everything
// was written.
func (f File) Replace(name string) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.new")
	if err != nil {
		return fmt.Errorf("write the commits: %w", err)
	}
	err = f.Write(temporary)
	if err == nil {
		err = temporary.Sync()
	}
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write the commits: %w", errors.Join(err, os.Remove(temporary.Name())))
	}
	return nil
}

// Read reads a file. If a field is not valid, the error wraps an *oona.FieldError.
func Read(r io.Reader) (File, error) {
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	var f File
	if err := decoder.Decode(&f); err != nil {
		return File{}, fmt.Errorf("the file is not one of oona group export: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return File{}, &oona.FieldError{Field: "file", Reason: "has more than one JSON value; give a file of oona group export"}
	}
	return f, f.validate()
}

func (f File) validate() error {
	wrong := func(field, format string, args ...any) error {
		return &oona.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case f.Format != Format:
		return wrong("format", "is %q; this version reads %q", f.Format, Format)
	case f.Group == "":
		return wrong("group", "is empty")
	case f.Topic == "":
		return wrong("topic", "is empty")
	}
	for i, p := range f.Partitions {
		at := fmt.Sprintf("partitions[%d]", i)
		switch {
		case p.Partition < 0 || i > 0 && p.Partition <= f.Partitions[i-1].Partition:
			return wrong(at+".partition", "is %d; each number must be greater than the one before it", p.Partition)
		case p.Offset < 0:
			return wrong(at+".offset", "is %d; give 0 or more", p.Offset)
		}
	}
	return nil
}
