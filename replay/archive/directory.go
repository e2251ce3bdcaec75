package archive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay/manifest"
)

// ErrMissing is returned if the archive lacks a part of a range.
var ErrMissing = errors.New("the archive lacks records")

// Directory is an archive that is read as if it were the log of its topics.
type Directory struct {
	Manifest *manifest.Manifest
	Path     string
}

// OpenDirectory opens an archive. The error wraps manifest.ErrNone.
func OpenDirectory(path string) (*Directory, error) {
	m, err := manifest.Read(path)
	if err != nil {
		return nil, err
	}
	return &Directory{m, path}, nil
}

// Extents returns which offsets of the topics the archive has, by partition. These include offsets
// that are there only because the snapshots need them (see Asked). The error wraps
// bus.ErrNoTopic if the archive does not have a topic.
func (d *Directory) Extents(_ context.Context, topics ...string) (map[string][]bus.Extent, error) {
	all := make(map[string][]bus.Extent, len(topics))
	for _, name := range topics {
		topic := d.Manifest.Topic(name)
		if topic == nil {
			return nil, fmt.Errorf("archive: %s: %s: %w", d.Path, name, bus.ErrNoTopic)
		}
		for _, p := range topic.Partitions {
			all[name] = append(all[name], bus.Extent{Start: p.From, End: p.End})
		}
	}
	return all, nil
}

// partition returns the entry of a partition in the manifest, or nil.
func (d *Directory) partition(topic string, partition int32) *manifest.Partition {
	t := d.Manifest.Topic(topic)
	if t == nil || partition < 0 || int(partition) >= len(t.Partitions) {
		return nil
	}
	return &t.Partitions[partition]
}

// Asked returns the first offset of a partition that the archive was made for. It may have earlier
// records, too, because the snapshots need them.
func (d *Directory) Asked(topic string, partition int32) int64 {
	p := d.partition(topic, partition)
	if p == nil {
		return 0
	}
	return p.Asked
}

// Header returns the header of the first file of a partition, or false if the archive has no file of
// it.
func (d *Directory) Header(topic string, partition int32) (Header, bool, error) {
	p := d.partition(topic, partition)
	if p == nil || len(p.Files) == 0 {
		return Header{}, false, nil
	}
	h, err := d.header(p.Files[0])
	return h, err == nil, err
}

func (d *Directory) header(f manifest.File) (Header, error) {
	r, err := Open(d.file(f))
	if err != nil {
		return Header{}, d.absent(f, err)
	}
	return r.Header, r.Close()
}

// Snapshot returns the snapshot of the last file that has one and begins at the offset to or before
// it, or nil. The archive has all records that the snapshot needs.
func (d *Directory) Snapshot(topic string, partition int32, to int64) (*Snapshot, error) {
	p := d.partition(topic, partition)
	if p == nil {
		return nil, nil
	}
	for i, f := range slices.Backward(p.Files) {
		if f.First > to && i > 0 { // the first file begins with what its snapshot needs
			continue
		}
		h, err := d.header(f)
		if err != nil {
			return nil, err
		}
		if h.Snapshot != nil && h.Snapshot.Offset >= p.From {
			return h.Snapshot, nil
		}
	}
	return nil, nil
}

// OffsetAt returns the offset of the first record of a partition that was appended at a
// time or after it, or the end of what is held.
func (d *Directory) OffsetAt(ctx context.Context, topic string, partition int32, at oona.Micros) (offset int64, err error) {
	p := d.partition(topic, partition)
	if p == nil {
		return 0, fmt.Errorf("archive: %s: %s/%d: %w", d.Path, topic, partition, bus.ErrNoTopic)
	}
	for _, f := range p.Files {
		if f.Latest < int64(at) {
			continue
		}
		offset = p.End
		err := d.readFile(ctx, topic, f, f.First, f.End, func(msg *message.Message) error {
			in, err := bus.PositionOf(msg)
			if err != nil || in.Appended < at {
				return err
			}
			offset = in.Offset
			return errEnough
		})
		return offset, err
	}
	return p.End, nil
}

func (d *Directory) file(f manifest.File) string {
	return filepath.Join(d.Path, filepath.FromSlash(f.Name))
}

// absent returns ErrMissing for a file that does not exist, or the error.
func (d *Directory) absent(f manifest.File, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the file %s with the offsets %d to %d is missing", ErrMissing, d.file(f), f.First, f.End-1)
	}
	return err
}

// errEnough ends the reading of a file.
var errEnough = errors.New("enough")

// Read calls take with the records of a range, in order, as bus.Admin does. The error
// wraps ErrMissing if a file of the range is missing or shorter than the manifest says, and
// ErrForm if a file is damaged. Unless take returns an error, Read reads each file to its end and
// compares its checksum. So take may get damaged records before Read finds the damage.
func (d *Directory) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	p := d.partition(topic, r.Partition)
	if p == nil {
		return fmt.Errorf("archive: %s: %s/%d: %w", d.Path, topic, r.Partition, bus.ErrNoTopic)
	}
	files := slices.SortedFunc(slices.Values(p.Files), func(a, b manifest.File) int { return cmp.Compare(a.First, b.First) })
	next := max(r.From, p.From)
	for _, f := range files {
		if f.End <= next || f.First >= r.End {
			continue
		}
		if f.First > next {
			break
		}
		if err := d.readFile(ctx, topic, f, next, r.End, take); err != nil {
			return err
		}
		next = f.End
	}
	if end := min(r.End, p.End); next < end {
		return fmt.Errorf("%w: %s has no file with offset %d of %s/%d", ErrMissing, d.Path, next, topic, r.Partition)
	}
	return nil
}

func (d *Directory) readFile(ctx context.Context, topic string, f manifest.File, from, end int64, take func(*message.Message) error) error {
	name := d.file(f)
	reader, err := open(name, quickest(f))
	if err != nil {
		return d.absent(f, err)
	}
	var read int64
	err = reader.Each(func(msg *message.Message, at bus.Position) error {
		read++
		switch {
		case at.Offset >= end:
			return errEnough
		case ctx.Err() != nil:
			return ctx.Err()
		case at.Offset < from:
			return nil
		}
		return take(msg)
	})
	enough := errors.Is(err, errEnough)
	if err == nil || enough {
		err = reader.check(f)
	}
	if err == nil && !enough && read != f.Records {
		err = fmt.Errorf("%w: %s holds %d records, and its manifest says %d", ErrMissing, name, read, f.Records)
	}
	return errors.Join(err, reader.Close())
}

// CheckDigest returns an error if the size or the SHA-256 of a file differs from the manifest.
func (d *Directory) CheckDigest(f manifest.File) (err error) {
	name := d.file(f)
	file, err := os.Open(name)
	if err != nil {
		return d.absent(f, fmt.Errorf("archive: %w", err))
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	digest := sha256.New()
	size, err := io.Copy(digest, file)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return compare(name, size, digest, f)
}

// VerifyFile reads a file, and returns an error if it differs from the manifest. It calls take with
// each record.
func (d *Directory) VerifyFile(ctx context.Context, f manifest.File, take func(*message.Message, bus.Position) error) error {
	name := d.file(f)
	reader, err := open(name, sha256.New())
	if err != nil {
		return d.absent(f, err)
	}
	var read, last int64 = 0, f.First - 1
	err = reader.Each(func(msg *message.Message, at bus.Position) error {
		if at.Offset <= last || at.Offset >= f.End {
			return fmt.Errorf("%w: %s has offset %d after %d, and should have the offsets %d to %d in order", ErrForm, name, at.Offset, last, f.First, f.End-1)
		}
		read, last = read+1, at.Offset
		return errors.Join(ctx.Err(), take(msg, at))
	})
	if err == nil {
		err = reader.check(f)
	}
	if err == nil && read != f.Records {
		err = fmt.Errorf("%w: %s holds %d records, and the manifest says %d", ErrForm, name, read, f.Records)
	}
	return errors.Join(err, reader.Close())
}
