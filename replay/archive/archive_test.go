package archive_test

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/archive"
	"github.com/morphogenetic/oona/replay/manifest"
)

// record is a record with everything that an archive must keep.
type record struct {
	key, value []byte
	headers    message.Metadata
	at         bus.Position
}

var records = []record{
	{key: nil, value: []byte("first"), at: bus.Position{Offset: 7, Appended: 1_790_000_000_000_001}},
	{key: []byte{}, value: []byte{}, headers: message.Metadata{"oona-path": "ingest-1", "a": ""}, at: bus.Position{Offset: 8, Appended: 1_790_000_000_000_002, Incarnation: 5}},
	{key: []byte{0, 0xff}, value: nil, at: bus.Position{Offset: 12, Appended: 0}},
}

func write(t testing.TB, dir, codec string) manifest.File {
	t.Helper()
	h := archive.Header{Topic: "kasmina.telemetry.seed.metrics", Partition: 3, Partitions: 4, First: 5, Incarnation: 2, Snapshot: &archive.Snapshot{Offset: 5, Metadata: "oona1 4 x"}}
	w, err := archive.Create(dir, h, codec)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		at := r.at
		at.Topic, at.Partition, at.Key = h.Topic, h.Partition, r.key
		msg := message.NewMessage("", r.value)
		maps.Copy(msg.Metadata, r.headers)
		if err := w.Append(msg, at); err != nil {
			t.Fatal(err)
		}
	}
	f, err := w.Finish(20)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	for _, codec := range archive.Codecs {
		dir := t.TempDir()
		f := write(t, dir, codec)
		if f.First != 5 || f.End != 20 || f.Records != 3 || f.Name != "kasmina.telemetry.seed.metrics/partition-00003/00000000000000000005-00000000000000000019.avro" {
			t.Errorf("%s: %+v", codec, f)
		}
		r, err := archive.Open(filepath.Join(dir, f.Name))
		if err != nil {
			t.Fatal(err)
		}
		if r.Header.Incarnation != 2 || r.Header.Snapshot == nil || *r.Header.Snapshot != (archive.Snapshot{Offset: 5, Metadata: "oona1 4 x"}) {
			t.Errorf("%s: %+v", codec, r.Header)
		}
		n := 0
		err = r.Each(func(msg *message.Message, at bus.Position) error {
			want := records[n]
			if !sameBytes(at.Key, want.key) || !sameBytes(msg.Payload, want.value) || !maps.Equal(msg.Metadata, want.headers) ||
				at.Offset != want.at.Offset || at.Appended != want.at.Appended || at.Incarnation != want.at.Incarnation || at.Partition != 3 {
				t.Errorf("%s: record %d is %+v, %q, %v", codec, n, at, msg.Payload, msg.Metadata)
			}
			if in, err := bus.PositionOf(msg); err != nil || in.Offset != at.Offset {
				t.Errorf("%s: the position of record %d is %+v, %v", codec, n, in, err)
			}
			n++
			return nil
		})
		if err := errors.Join(err, r.Close()); err != nil || n != len(records) {
			t.Errorf("%s: %d records, %v", codec, n, err)
		}
	}
}

// sameBytes compares bytes. Nil and empty bytes differ.
func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func TestFilesAreReproducible(t *testing.T) {
	a, b := write(t, t.TempDir(), "deflate"), write(t, t.TempDir(), "deflate")
	if a != b || a.SHA256 == "" {
		t.Errorf("%+v and %+v", a, b)
	}
}

// held returns an archive with one file, of topicHeld, which it also returns.
func held(t *testing.T, codec string) (*archive.Directory, manifest.File) {
	t.Helper()
	dir := t.TempDir()
	f := write(t, dir, codec)
	m := manifest.Manifest{Topics: []manifest.Topic{{Name: topicHeld, Partitions: make([]manifest.Partition, 4)}}}
	m.Topics[0].Partitions[3] = manifest.Partition{Asked: 5, From: 5, End: 20, Files: []manifest.File{f}}
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	d, err := archive.OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d, f
}

const topicHeld = "kasmina.telemetry.seed.metrics"

// countHeld reads a range of the partition of held.
func countHeld(t *testing.T, d *archive.Directory, from, end int64) (n int, err error) {
	t.Helper()
	err = d.Read(t.Context(), topicHeld, bus.Range{Partition: 3, From: from, End: end}, func(*message.Message) error { n++; return nil })
	return n, err
}

func ignore(*message.Message, bus.Position) error { return nil }

// If a byte of a file was changed, all readers find it: verify, a replay, a replay of a range that ends
// within the file, and the search for a time. If only the header is read, it is correct or refused.
// The test changes a sample of the bytes, because opening a file takes a millisecond.
func TestChangedBytes(t *testing.T) {
	for n, codec := range archive.Codecs {
		d, f := held(t, codec)
		if codec == "snappy" { // an archive of an earlier version
			d.Manifest.Topics[0].Partitions[3].Files[0].CRC32C = ""
		}
		name := filepath.Join(d.Path, f.Name)
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		header, _, err := d.Header(topicHeld, 3)
		if err != nil || header.Snapshot == nil {
			t.Fatalf("%s: %+v, %v", codec, header, err)
		}
		reads := map[string]func() error{
			"verify":          func() error { return d.VerifyFile(t.Context(), f, ignore) },
			"replay":          func() error { _, err := countHeld(t, d, 0, 100); return err },
			"a part":          func() error { _, err := countHeld(t, d, 6, 8); return err },
			"find a time":     func() error { _, err := d.OffsetAt(t.Context(), topicHeld, 3, 1); return err },
			"only the digest": func() error { return d.CheckDigest(f) },
		}
		for what, read := range reads {
			if err := read(); err != nil {
				t.Fatalf("%s: %s of a whole file: %v", codec, what, err)
			}
		}
		for i := n; i < len(whole); i += 61 {
			damaged := bytes.Clone(whole)
			damaged[i] ^= 0x40
			if err := os.WriteFile(name, damaged, 0o666); err != nil {
				t.Fatal(err)
			}
			for what, read := range reads {
				if err := read(); !errors.Is(err, archive.ErrForm) || !strings.Contains(err.Error(), name) {
					t.Errorf("%s: %s, byte %d was changed: %v", codec, what, i, err)
				}
			}
			if s, err := d.Snapshot(topicHeld, 3, 20); !errors.Is(err, archive.ErrForm) && (err != nil || s == nil || *s != *header.Snapshot) {
				t.Errorf("%s: byte %d was changed: the snapshot is %+v, %v", codec, i, s, err)
			}
		}
	}
}

// A file that was cut off is found, too.
func TestCutFiles(t *testing.T) {
	d, f := held(t, "null")
	name := filepath.Join(d.Path, f.Name)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := countHeld(t, d, 0, 100); n != 3 || err != nil {
		t.Fatalf("%d records, %v", n, err)
	}
	for size := 0; size < len(whole); size += 7 {
		if err := os.WriteFile(name, whole[:size], 0o666); err != nil {
			t.Fatal(err)
		}
		if n, err := countHeld(t, d, 0, 100); !errors.Is(err, archive.ErrForm) {
			t.Fatalf("%d of %d bytes are left: %d records, %v", size, len(whole), n, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	for _, codec := range archive.Codecs {
		file := write(f, dir, codec)
		data, err := os.ReadFile(filepath.Join(dir, file.Name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		name := filepath.Join(t.TempDir(), "x.avro")
		if err := os.WriteFile(name, data, 0o666); err != nil {
			t.Fatal(err)
		}
		r, err := archive.Open(name)
		if err != nil {
			return
		}
		err = r.Each(func(*message.Message, bus.Position) error { return nil })
		if err != nil && !errors.Is(err, archive.ErrForm) {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
