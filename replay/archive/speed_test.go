package archive_test

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/archive"
	"github.com/morphogenetic/oona/replay/manifest"
)

func BenchmarkAppend(b *testing.B) {
	for _, codec := range archive.Codecs {
		b.Run(codec, func(b *testing.B) {
			w, err := archive.Create(b.TempDir(), archive.Header{Topic: "t", Partitions: 1}, codec)
			if err != nil {
				b.Fatal(err)
			}
			msg := message.NewMessage("", make([]byte, 33_000))
			for i := range msg.Payload {
				msg.Payload[i] = byte(i * i >> 3)
			}
			msg.Metadata.Set("oona-path", "ingest-0")
			b.SetBytes(int64(len(msg.Payload)))
			b.ReportAllocs()
			for n := range int64(b.N) {
				if err := w.Append(msg, bus.Position{Topic: "t", Offset: n, Appended: 1_790_000_000_000_000, Key: []byte("key")}); err != nil {
					b.Fatal(err)
				}
			}
			if err := w.Abort(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkRead reads a file of frames of 33 kB, which are checked.
func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	w, err := archive.Create(dir, archive.Header{Topic: "t", Partitions: 1}, "null")
	if err != nil {
		b.Fatal(err)
	}
	const records = 2000
	msg := message.NewMessage("", make([]byte, 33_000))
	for n := range int64(records) {
		if err := w.Append(msg, bus.Position{Topic: "t", Offset: n, Appended: 1_790_000_000_000_000, Key: []byte("key")}); err != nil {
			b.Fatal(err)
		}
	}
	f, err := w.Finish(records)
	if err != nil {
		b.Fatal(err)
	}
	m := &manifest.Manifest{Topics: []manifest.Topic{{Name: "t", Partitions: []manifest.Partition{{End: records, Files: []manifest.File{f}}}}}}
	d := &archive.Directory{Manifest: m, Path: dir}
	b.SetBytes(f.Bytes)
	for b.Loop() {
		if err := d.Read(b.Context(), "t", bus.Range{End: records}, func(*message.Message) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
