package parquet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
)

// Verify compares the files of a directory with its manifest: their sizes, hashes and rows.
// If log is not nil, it also reads the records of the same ranges again, and compares the
// numbers of records and rows. In the result, Records is the number in the manifest.
func Verify(ctx context.Context, dir string, log replay.Log) (v replay.Verified, err error) {
	v.Faults = []replay.Fault{}
	m, err := manifest.Read(dir)
	if err != nil {
		return v, err
	}
	var options Options
	if err := json.Unmarshal(m.Options, &options); err != nil || m.Form != form {
		return v, fmt.Errorf("parquet: %s has the form %q: %w", dir, m.Form, errors.Join(ErrOptions, err))
	}
	named := map[string]bool{}
	for _, t := range m.Topics {
		for i := range t.Partitions {
			p := &verifying{Verified: &v, dir: dir, topic: t.Name, number: int32(i), done: &t.Partitions[i], named: named}
			if err := p.files(ctx); err != nil {
				return v, err
			}
			if log == nil {
				continue
			}
			if err := v.CountAgain(ctx, log, bus.Position{Topic: t.Name, Partition: int32(i)}, p.done, options.Selection); err != nil {
				return v, err
			}
		}
	}
	return v, strangers(dir, named, &v)
}

// verifying is the verification of a partition.
type verifying struct {
	*replay.Verified
	dir    string
	topic  string
	number int32
	done   *manifest.Partition
	named  map[string]bool // files that the manifest names, of all partitions
}

func (v *verifying) fault(format string, args ...any) {
	v.Faults = append(v.Faults, replay.Fault{Topic: v.topic, Partition: v.number, What: fmt.Sprintf(format, args...)})
}

func (v *verifying) files(ctx context.Context) error {
	var rows int64
	for _, f := range v.done.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		v.Files++
		v.named[f.Name] = true
		if what := v.file(f); what != "" {
			v.fault("%s: %s", f.Name, what)
		}
		if !strings.HasPrefix(f.Name, "layer_") || strings.Contains(f.Name, windowsSuffix+"/") {
			rows += f.Rows
		}
	}
	if c := v.done.Counts; c != nil {
		v.Records += c.Records
		if c.Rows != rows {
			v.fault("the files have %d rows, and the manifest says %d", rows, c.Rows)
		}
	}
	return nil
}

// file returns a description of the error in a file, or "".
func (v *verifying) file(f manifest.File) string {
	file, err := os.Open(filepath.Join(v.dir, filepath.FromSlash(f.Name)))
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	h := sha256.New()
	size, err := io.Copy(h, file)
	switch sum := hex.EncodeToString(h.Sum(nil)); {
	case err != nil:
		return err.Error()
	case size != f.Bytes:
		return fmt.Sprintf("has %d bytes, and the manifest says %d", size, f.Bytes)
	case sum != f.SHA256:
		return "has another hash than the manifest says"
	}
	held, err := parquet.OpenFile(file, size, parquet.SkipPageIndex(true))
	switch {
	case err != nil:
		return err.Error()
	case held.NumRows() != f.Rows:
		return fmt.Sprintf("has %d rows, and the manifest says %d", held.NumRows(), f.Rows)
	}
	return ""
}

// strangers adds a fault for each Parquet file that the manifest does not name, because tools would
// read it, too.
func strangers(dir string, named map[string]bool, v *replay.Verified) error {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, parquetFileName) {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if name = filepath.ToSlash(name); err == nil && !named[name] && name != statesTable && name != producersTable {
			v.Faults = append(v.Faults, replay.Fault{Topic: "none", What: name + ": the manifest does not name it; if a replay was killed, call it again, which removes such files"})
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("parquet: look for files in %s: %w", dir, err)
	}
	return nil
}
