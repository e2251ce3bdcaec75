package parquet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/morphogenetic/oona/replay/manifest"
)

// sweep removes the files of a partition that the manifest does not name. An interrupted replay has
// written them, and this one may end its files at other offsets.
func (o *Output) sweep(tables []string, partition int32, done *manifest.Partition) error {
	named := make(map[string]bool, len(done.Files))
	for _, f := range done.Files {
		named[f.Name] = true
	}
	for _, table := range tables {
		err := filepath.WalkDir(filepath.Join(o.Dir, table), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !isPart(entry.Name(), partition) {
				return err
			}
			name, err := filepath.Rel(o.Dir, path)
			if err != nil || named[filepath.ToSlash(name)] {
				return err
			}
			return os.Remove(path)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("parquet: remove the files of an interrupted replay: %w", err)
		}
	}
	return nil
}

func isPart(name string, partition int32) bool {
	return strings.HasPrefix(name, partPrefix(partition)) && strings.HasSuffix(strings.TrimSuffix(name, manifest.Temporary), parquetFileName)
}
