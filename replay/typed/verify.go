package typed

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	twmb "github.com/twmb/avro"
	"github.com/twmb/avro/ocf"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/schemas/avro"
)

// Verify reads the files of a directory, and compares them with its manifest: their hashes,
// records and readings. If log is not nil, it also reads the records of the same ranges
// again, and compares the counts.
func Verify(ctx context.Context, dir string, log replay.Log) (v replay.Verified, err error) {
	v.Faults = []replay.Fault{}
	m, err := manifest.Read(dir)
	if err != nil {
		return v, err
	}
	var options Options
	if err := json.Unmarshal(m.Options, &options); err != nil || m.Form != form {
		return v, fmt.Errorf("typed: %s has the form %q: %w", dir, m.Form, errors.Join(ErrOptions, err))
	}
	for _, t := range m.Topics {
		for i := range t.Partitions {
			done, number := &t.Partitions[i], int32(i)
			if err := verifyFiles(ctx, dir, t.Name, number, done, &v); err != nil {
				return v, err
			}
			if log == nil {
				continue
			}
			if err := v.CountAgain(ctx, log, bus.Position{Topic: t.Name, Partition: number}, done, options.Selection); err != nil {
				return v, err
			}
		}
	}
	return v, nil
}

func verifyFiles(ctx context.Context, dir, topic string, number int32, done *manifest.Partition, v *replay.Verified) error {
	fault := func(format string, args ...any) {
		v.Faults = append(v.Faults, replay.Fault{Topic: topic, Partition: number, What: fmt.Sprintf(format, args...)})
	}
	var rows int64
	for _, f := range done.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		v.Files++
		rows += f.Rows
		if err := verifyFile(dir, f); err != nil {
			fault("%s: %v", f.Name, err)
		}
	}
	if done.Counts == nil {
		return nil
	}
	v.Records += done.Counts.Records
	if done.Counts.Rows != rows {
		fault("the files have %d readings, and the manifest says %d", rows, done.Counts.Rows)
	}
	return nil
}

// verifyFile returns an error if a file differs from the manifest.
func verifyFile(dir string, f manifest.File) error {
	file, err := os.Open(filepath.Join(dir, filepath.FromSlash(f.Name)))
	if err != nil {
		return err
	}
	defer file.Close()
	digest := sha256.New()
	size, err := io.Copy(digest, file)
	if err != nil {
		return err
	}
	if sum := hex.EncodeToString(digest.Sum(nil)); size != f.Bytes || sum != f.SHA256 {
		return fmt.Errorf("it has %d bytes with the SHA-256 %s, and the manifest says %d and %s", size, sum, f.Bytes, f.SHA256)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	held, rows, err := count(file)
	if err == nil && (held != f.Records || rows != f.Rows) {
		err = fmt.Errorf("it has %d records with %d readings, and the manifest says %d and %d", held, rows, f.Records, f.Rows)
	}
	return err
}

// seedsOnly is the schema with which frames are read. It has only the seeds, because it would be slow to
// read all of a frame.
const seedsOnly = `{"type": "record", "name": "SeedMetrics", "namespace": "kasmina.telemetry", "fields": [{"name": "seed_ids", "type": {"type": "array", "items": "int"}}]}`

// count reads a file, and returns the numbers of its records and readings.
func count(file io.Reader) (held, rows int64, err error) {
	frames := false
	reader, err := ocf.NewReader(bufio.NewReaderSize(file, 1<<20), ocf.WithReaderSchemaFunc(func(r *ocf.Reader) (*twmb.Schema, error) {
		if root := r.Schema().Root(); root.Namespace+"."+root.Name != avro.FrameName {
			return r.Schema(), nil
		}
		frames = true
		return twmb.Parse(seedsOnly)
	}))
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	for {
		var frame struct {
			Seeds []int32 `avro:"seed_ids"`
		}
		var other any
		into, readings := any(&other), int64(1)
		if frames {
			into = &frame
		}
		err := reader.Decode(into)
		if errors.Is(err, io.EOF) {
			return held, rows, nil
		}
		if err != nil {
			return held, rows, err
		}
		if frames {
			readings = int64(len(frame.Seeds))
		}
		held, rows = held+1, rows+readings
	}
}
