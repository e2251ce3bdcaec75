package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/morphogenetic/oona/schemas/avro"
)

// The limits of the cache file, in bytes. Larger schemas are not kept in it. The published
// schemas have a few kB.
const (
	maxCache       = 64 << 20
	maxCachedTexts = 32 << 10 // size of one schema and its references
)

// size returns the length of the texts.
func (t text) size() (n int) {
	for _, reference := range t.References {
		n += len(reference)
	}
	return n + len(t.Schema)
}

// cacheFile keeps schemas by id in a file. They are used while the registry is unavailable.
// Errors of the file are only logged.
type cacheFile struct {
	path   string
	logger *slog.Logger

	mu      sync.Mutex
	content cacheContent
}

// cacheContent is the JSON of the file.
type cacheContent struct {
	Registry string          `json:"registry"` // URLs of the registry, because ids are only valid in one registry
	Schemas  map[string]text `json:"schemas"`  // by id
}

func openCache(path string, urls []string, logger *slog.Logger) *cacheFile {
	c := &cacheFile{path: path, logger: logger, content: cacheContent{Registry: strings.Join(urls, ","), Schemas: make(map[string]text)}}
	found, err := readCache(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		logger.Warn("the cache file of schemas cannot be read; it is replaced when a schema is looked up", "file", path, "err", err)
	case found.Registry != c.content.Registry:
		logger.Warn("the cache file has schemas of another registry; it is replaced when a schema is looked up", "file", path, "registry", found.Registry)
	default:
		maps.Copy(c.content.Schemas, found.Schemas)
	}
	return c
}

func readCache(path string) (found cacheContent, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return found, err
	}
	if info.Size() > maxCache {
		return found, fmt.Errorf("it has %d bytes, more than %d", info.Size(), maxCache)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return found, err
	}
	return found, json.Unmarshal(data, &found)
}

func (c *cacheFile) get(id avro.SchemaID) (text, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.content.Schemas[id.String()]
	return t, ok
}

// put keeps a schema that the registry has returned.
func (c *cacheFile) put(id avro.SchemaID, t text) {
	if t.size() > maxCachedTexts {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old, known := c.content.Schemas[id.String()]
	if known && old.Schema == t.Schema && slices.Equal(old.References, t.References) {
		return
	}
	if known {
		c.logger.Warn("the registry has another schema under this id than the cache file: it was made anew; the registry's is used, and kept", "schema_id", id.String(), "file", c.path)
	}
	if len(c.content.Schemas) >= maxKnown && !known {
		for other := range c.content.Schemas {
			delete(c.content.Schemas, other)
			break
		}
	}
	c.content.Schemas[id.String()] = t
	if err := c.write(); err != nil {
		c.logger.Warn("the cache file of schemas cannot be written; its directory must exist and be writable", "file", c.path, "err", err)
	}
}

// write replaces the file.
func (c *cacheFile) write() error {
	data, err := json.MarshalIndent(c.content, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(c.path), filepath.Base(c.path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
