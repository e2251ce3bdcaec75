package avro

import (
	"embed"
	"encoding/binary"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/avro"
)

// Schema is one published version of a record's schema.
type Schema struct {
	Name        string // with its namespace, e.g. "kasmina.telemetry.SeedMetrics"
	Version     int
	Fingerprint uint64 // CRC-64-AVRO of the parsing canonical form
	Text        string // the .avsc file
}

// The records that this package speaks of.
const (
	seedMetrics      = "kasmina.telemetry.SeedMetrics"
	layerHealth      = "kasmina.telemetry.LayerHealth"
	layerPerformance = "kasmina.telemetry.LayerPerformance"
	tick             = "kasmina.telemetry.Tick"
	seedEvent        = "kasmina.events.SeedEvent"

	windowConfiguration = "kasmina.telemetry.WindowConfiguration"
	incarnationStart    = "kasmina.telemetry.IncarnationStart"
	archiveRecord       = "kasmina.archive.Record"
)

//go:embed *.avsc
var files embed.FS

// published holds every version in the tree. It does not change once loaded.
var published = mustLoad(files)

// Schemas returns every published version, by name and ascending version.
func Schemas() []Schema {
	all := make([]Schema, 0, len(published.byFingerprint))
	for _, v := range published.byFingerprint {
		all = append(all, v.Schema)
	}
	slices.SortFunc(all, func(a, b Schema) int {
		if a.Name != b.Name {
			return strings.Compare(a.Name, b.Name)
		}
		return a.Version - b.Version
	})
	return all
}

// registry finds schemas by fingerprint.
type registry struct {
	byFingerprint map[uint64]*version
	latest        map[string]*version // by name
}

// version is a schema that records were written with.
type version struct {
	Schema
	parsed   *avro.Schema
	resolved *avro.Schema // reads this version into the latest one's fields
}

func mustLoad(dirs ...fs.FS) *registry {
	r, err := load(dirs...)
	if err != nil {
		panic(err) // the files are embedded: only a broken build comes here
	}
	return r
}

// load reads the files NAME.vN.avsc of the directories.
func load(dirs ...fs.FS) (*registry, error) {
	r := &registry{byFingerprint: map[uint64]*version{}, latest: map[string]*version{}}
	for _, dir := range dirs {
		names, err := fs.Glob(dir, "*.avsc")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			text, err := fs.ReadFile(dir, name)
			if err != nil {
				return nil, err
			}
			if err := r.add(name, string(text)); err != nil {
				return nil, fmt.Errorf("schema %s: %w", name, err)
			}
		}
	}
	return r, r.resolve()
}

func (r *registry) add(file, text string) error {
	number, err := versionOf(file)
	if err != nil {
		return err
	}
	parsed, err := avro.Parse(text)
	if err != nil {
		return err
	}
	v := &version{parsed: parsed, Schema: Schema{
		Name:        fullName(parsed.Root()),
		Version:     number,
		Fingerprint: fingerprint(parsed),
		Text:        text,
	}}
	if other, ok := r.byFingerprint[v.Fingerprint]; ok {
		return fmt.Errorf("has the fingerprint of %s version %d", other.Name, other.Version)
	}
	r.byFingerprint[v.Fingerprint] = v
	if last, ok := r.latest[v.Name]; !ok || v.Version > last.Version {
		r.latest[v.Name] = v
	}
	return nil
}

func (r *registry) resolve() error {
	for _, v := range r.byFingerprint {
		latest := r.latest[v.Name]
		resolved, err := avro.Resolve(v.parsed, latest.parsed)
		if err != nil {
			return fmt.Errorf("reading version %d of %s as version %d: %w", v.Version, v.Name, latest.Version, err)
		}
		v.resolved = resolved
	}
	return nil
}

// versionOf returns N of NAME.vN.avsc.
func versionOf(file string) (int, error) {
	stem := strings.TrimSuffix(path.Base(file), ".avsc")
	_, digits, ok := strings.Cut(stem, ".v")
	if !ok {
		return 0, fmt.Errorf("the file's name is not NAME.vN.avsc")
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("the file's name is not NAME.vN.avsc")
	}
	return n, nil
}

// fullName returns the name of a record with its namespace, or what else the
// schema is, e.g. "long".
func fullName(n *avro.SchemaNode) string {
	switch {
	case n.Name == "":
		return n.Type
	case n.Namespace == "":
		return n.Name
	}
	return n.Namespace + "." + n.Name
}

func fingerprint(s *avro.Schema) uint64 {
	h := avro.NewRabin()
	h.Write(s.Canonical()) // never fails
	return h.Sum64()
}

// decode reads the record behind data's framing, written with version v, into
// w, which has the fields of the latest version. It returns what follows.
func (v *version) decode(data []byte, w any) (rest []byte, err error) {
	rest, err = v.resolved.Decode(data[framingSize:], w)
	if err != nil {
		return nil, foreign(v.Name, err)
	}
	return rest, nil
}

// find returns the version that wrote data, which begins with a framing, if
// it is a version of one of the names.
func (r *registry) find(data []byte, names ...string) (*version, error) {
	fp, err := readFraming(data)
	if err != nil {
		return nil, err
	}
	v, ok := r.byFingerprint[fp]
	if !ok {
		return nil, &DecodeError{"fingerprint", 2, fmt.Errorf("%w: %016x; this reader may be older than the writer", ErrUnpublished, fp)}
	}
	if !slices.Contains(names, v.Name) {
		return nil, &DecodeError{"fingerprint", 2, fmt.Errorf("%w: the record is a %s, not a %s", ErrFingerprint, v.Name, strings.Join(names, " or "))}
	}
	return v, nil
}

// Single-object encoding: two marker bytes, the fingerprint little-endian.
const (
	marker0     = 0xC3
	marker1     = 0x01
	framingSize = 10
)

func appendFraming(dst []byte, fingerprint uint64) []byte {
	dst = append(dst, marker0, marker1)
	return binary.LittleEndian.AppendUint64(dst, fingerprint)
}

func readFraming(data []byte) (fingerprint uint64, err error) {
	if len(data) == 0 {
		return 0, &DecodeError{"framing", 0, fmt.Errorf("%w: no data", ErrTruncated)}
	}
	if data[0] != marker0 || len(data) > 1 && data[1] != marker1 {
		return 0, &DecodeError{"framing", 0, fmt.Errorf("%w: it begins with % x; Avro single-object encoding begins with c3 01", ErrFraming, data[:min(2, len(data))])}
	}
	if len(data) < framingSize {
		return 0, &DecodeError{"framing", len(data), fmt.Errorf("%w: the framing has %d bytes, %d are there", ErrTruncated, framingSize, len(data))}
	}
	return binary.LittleEndian.Uint64(data[2:]), nil
}

// Body returns what follows the framing of data, whatever its schema.
func Body(data []byte) ([]byte, error) {
	if _, err := readFraming(data); err != nil {
		return nil, err
	}
	return data[framingSize:], nil
}
