package parquet

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/morphogenetic/oona/replay/manifest"
)

// writeFile writes a file. The file gets its name when it is complete and on the disk. The name itself
// is durable after syncFolders. name is relative to the directory, with slashes.
func (o *Output) writeFile(name string, write func(io.Writer) error) (manifest.File, error) {
	file, err := o.tryFile(filepath.Join(o.Dir, filepath.FromSlash(name)), write)
	file.Name = name
	if err != nil {
		return file, fmt.Errorf("parquet: write %s: %w", name, err)
	}
	return file, nil
}

func (o *Output) tryFile(name string, write func(io.Writer) error) (file manifest.File, err error) {
	if err := o.makeFolder(filepath.Dir(name)); err != nil {
		return file, err
	}
	f, err := os.Create(name + manifest.Temporary)
	if err != nil {
		return file, err
	}
	out := &summing{w: f, h: sha256.New()}
	err = write(out)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return file, errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return file, err
	}
	file.Bytes, file.SHA256 = out.n, hex.EncodeToString(out.h.Sum(nil))
	return file, nil
}

// syncFolders makes the names of files and folders durable. It is called once for many
// files, because the files of many layers are in the same folders.
func (o *Output) syncFolders() error {
	for name := range o.unsynced {
		if err := manifest.SyncDir(name); err != nil {
			return fmt.Errorf("parquet: %w", err)
		}
	}
	clear(o.unsynced)
	return nil
}

// makeFolder makes a folder and its parents, and notes that the folder must be synced, because a file
// is about to be added.
func (o *Output) makeFolder(name string) error {
	if o.unsynced[name] {
		return nil
	}
	if info, err := os.Stat(name); err != nil || !info.IsDir() {
		if above := filepath.Dir(name); above != name {
			if err := o.makeFolder(above); err != nil {
				return err
			}
		}
		if err := os.Mkdir(name, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	o.unsynced[name] = true
	return nil
}

// summing counts and hashes the bytes that are written.
type summing struct {
	w io.Writer
	h hash.Hash
	n int64
}

func (s *summing) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.h.Write(p[:n])
	s.n += int64(n)
	return n, err
}
