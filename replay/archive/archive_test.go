package archive_test

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
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

// sameBytes also tells nil from empty.
func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func TestFilesAreReproducible(t *testing.T) {
	a, b := write(t, t.TempDir(), "deflate"), write(t, t.TempDir(), "deflate")
	if a != b || a.SHA256 == "" {
		t.Errorf("%+v and %+v", a, b)
	}
}

// Damage of any byte is found by the manifest's hash, and never ends the program.
func TestDamagedFiles(t *testing.T) {
	dir := t.TempDir()
	f := write(t, dir, "null")
	m := manifest.Manifest{Topics: []manifest.Topic{{Name: "kasmina.telemetry.seed.metrics", Partitions: make([]manifest.Partition, 4)}}}
	m.Topics[0].Partitions[3] = manifest.Partition{Asked: 5, From: 5, End: 20, Files: []manifest.File{f}}
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	d, err := archive.OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.VerifyFile(t.Context(), f, func(*message.Message, bus.Position) error { return nil }); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, f.Name)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	count := func() (n int, err error) {
		err = d.Read(t.Context(), "kasmina.telemetry.seed.metrics", bus.Range{Partition: 3, From: 0, End: 100}, func(*message.Message) error { n++; return nil })
		return n, err
	}
	if n, err := count(); n != 3 || err != nil {
		t.Fatalf("%d records, %v", n, err)
	}
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x40
		if err := os.WriteFile(name, damaged, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := d.VerifyFile(t.Context(), f, func(*message.Message, bus.Position) error { return nil }); !errors.Is(err, archive.ErrForm) {
			t.Fatalf("byte %d was changed: %v", i, err)
		}
		_, _ = count()
	}
	for size := range whole {
		if err := os.WriteFile(name, whole[:size], 0o666); err != nil {
			t.Fatal(err)
		}
		if n, err := count(); !errors.Is(err, archive.ErrForm) && !errors.Is(err, archive.ErrMissing) {
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
