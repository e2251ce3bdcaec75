// Package manifest reads and writes the manifest of a directory. The manifest says what a replay has
// written: which ranges of which topics, in which files. The next replay to the same directory
// continues from there, and verify compares the files with the manifest.
package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Temporary is the ending of the name of a file that is not finished.
const Temporary = ".tmp"

// Name is the file name of the manifest in a directory.
const Name = "_oona.json"

// ErrNone is returned for a directory that no replay has written.
var ErrNone = errors.New("the directory has no " + Name + ", so no replay has written it")

// Manifest says what a directory has. It names only finished files.
type Manifest struct {
	Form  string `json:"form"` // "archive", "avro" or "parquet"
	Oona  string `json:"oona"` // version of the program that wrote it last
	Codec string `json:"codec"`
	// Snapshots says whether the files of an archive have snapshots of the window engine.
	Snapshots bool    `json:"snapshots"`
	Topics    []Topic `json:"topics"`
	// Catalogues has the catalogues that the engine needed, as YAML, by hash.
	Catalogues map[string]string `json:"catalogues,omitempty"`
	// Options are the settings on which the files depend. All files of a directory have the same
	// form and the same options.
	Options json.RawMessage `json:"options,omitempty"`
	// Producers has the producers of the frames. Rows refer to them by index.
	Producers []Producer `json:"producers,omitempty"`
	// Windows has the settings of the archiver for logs without a configuration.
	Windows json.RawMessage `json:"windows,omitempty"`
}

// Topic says which parts of a topic a directory has.
type Topic struct {
	Name       string      `json:"name"`
	Partitions []Partition `json:"partitions"` // all of the topic, by number
}

// Partition says which part of a partition a directory has: From <= Asked <= End.
type Partition struct {
	Asked int64  `json:"asked"` // the first offset that was asked for
	From  int64  `json:"from"`  // the first offset in the directory; earlier than Asked if the engine needs earlier records
	End   int64  `json:"end"`   // offset after the last one in the directory
	Files []File `json:"files,omitempty"`
	// Counts are the counts of the records before End. Archives do not have them.
	Counts *Counts `json:"counts,omitempty"`
}

// Counts has counts of the records of a range. Readings = Rows + Skipped.
type Counts struct {
	Records  int64 `json:"records"`
	Readings int64 `json:"readings"` // in the records: the seeds of frames, 1 for a rollup or an event
	Rows     int64 `json:"rows"`     // readings that are in the output
	Skipped  int64 `json:"skipped"`  // readings that are not selected
	Own      int64 `json:"own"`      // Oona's own records, which have no readings
	Unread   int64 `json:"unread"`   // records that could not be decoded, so their readings are not known
}

// Differences describes, as text, which counts differ from those of the log.
func (c Counts) Differences(log Counts) string {
	var parts []string
	for _, count := range []struct {
		name      string
		here, log int64
	}{
		{"records", c.Records, log.Records},
		{"readings", c.Readings, log.Readings},
		{"rows", c.Rows, log.Rows},
		{"readings that are not selected", c.Skipped, log.Skipped},
		{"own records of Oona", c.Own, log.Own},
		{"records that could not be decoded", c.Unread, log.Unread},
	} {
		if count.here != count.log {
			parts = append(parts, fmt.Sprintf("%d %s, in the log %d", count.here, count.name, count.log))
		}
	}
	return strings.Join(parts, "; ")
}

// Producer is a process that sent frames.
type Producer struct {
	ID       string `json:"id"`
	Epoch    int64  `json:"epoch"`
	Timeline string `json:"timeline,omitempty"`
}

// Read returns the manifest of a directory. The error wraps ErrNone.
func Read(dir string) (*Manifest, error) {
	text, err := os.ReadFile(filepath.Join(dir, Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	m := new(Manifest)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("manifest: %s: %w", filepath.Join(dir, Name), err)
	}
	return m, nil
}

// Write replaces the manifest of a directory atomically.
func (m *Manifest) Write(dir string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("manifest: write the manifest: %w", err)
	}
	name := filepath.Join(dir, Name)
	if err := writeSynced(name+Temporary, append(text, '\n')); err != nil {
		return fmt.Errorf("manifest: write the manifest: %w", err)
	}
	if err := os.Rename(name+Temporary, name); err != nil {
		return fmt.Errorf("manifest: write the manifest: %w", err)
	}
	return SyncDir(dir)
}

func writeSynced(name string, text []byte) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Sync(), file.Close())
}

// Topic returns the entry of a topic, or nil.
func (m *Manifest) Topic(name string) *Topic {
	for i := range m.Topics {
		if m.Topics[i].Name == name {
			return &m.Topics[i]
		}
	}
	return nil
}

// Partition returns the entry of a partition, and adds one if there is none. The result is valid until
// the next call.
func (m *Manifest) Partition(topic string, partition int32) *Partition {
	t := m.Topic(topic)
	if t == nil {
		m.Topics = append(m.Topics, Topic{Name: topic})
		t = &m.Topics[len(m.Topics)-1]
	}
	for len(t.Partitions) <= int(partition) {
		t.Partitions = append(t.Partitions, Partition{})
	}
	return &t.Partitions[partition]
}

// File is the entry of a finished file.
type File struct {
	Name    string `json:"name"` // relative to the directory
	First   int64  `json:"first"`
	End     int64  `json:"end"` // the file has all records of its range before this offset
	Records int64  `json:"records"`
	Rows    int64  `json:"rows,omitempty"` // number of rows, if the file is a part of a table
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
	// CRC32C is set for archives only. A replay uses it to check what it reads, because SHA-256
	// would take too long.
	CRC32C string `json:"crc32c,omitempty"`
	// Latest is the latest append time of the records, in microseconds since 1970. Last is the
	// last record. Both are set for archives only.
	Latest int64 `json:"latest_append_time,omitempty"`
	Last   Last  `json:"last,omitzero"`
}

// Last identifies the last record of a file.
type Last struct {
	Offset     int64 `json:"offset"`
	AppendTime int64 `json:"append_time"`
}

// SyncDir makes a rename in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Add adds the counts of d.
func (c *Counts) Add(d Counts) {
	c.Records, c.Readings, c.Rows, c.Skipped = c.Records+d.Records, c.Readings+d.Readings, c.Rows+d.Rows, c.Skipped+d.Skipped
	c.Own, c.Unread = c.Own+d.Own, c.Unread+d.Unread
}
