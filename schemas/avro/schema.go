package avro

import (
	"cmp"
	"embed"
	"encoding/binary"
	"errors"
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
	Name        string // with the namespace, for example "kasmina.telemetry.SeedMetrics"
	Version     int
	Fingerprint uint64 // CRC-64-AVRO of the parsing canonical form
	Text        string // the .avsc file
}

// The names of the records.
const (
	seedMetrics      = "kasmina.telemetry.SeedMetrics"
	layerHealth      = "kasmina.telemetry.LayerHealth"
	layerPerformance = "kasmina.telemetry.LayerPerformance"
	tick             = "kasmina.telemetry.Tick"
	seedEvent        = "kasmina.events.SeedEvent"
	runEnd           = "kasmina.events.RunEnd"

	windowConfiguration = "kasmina.telemetry.WindowConfiguration"
	incarnationStart    = "kasmina.telemetry.IncarnationStart"
	archiveRecord       = "kasmina.archive.Record"
)

//go:embed *.avsc
var files embed.FS

// published has all versions.
var published = mustLoad(files)

// Schemas returns all published versions, sorted by name and version.
func Schemas() []Schema {
	all := make([]Schema, 0, len(published.byFingerprint))
	for _, v := range published.byFingerprint {
		all = append(all, v.Schema)
	}
	slices.SortFunc(all, func(a, b Schema) int { return cmp.Or(strings.Compare(a.Name, b.Name), a.Version-b.Version) })
	return all
}

// registry finds schemas by fingerprint.
type registry struct {
	byFingerprint map[uint64]*version
	latest        map[string]*version // by name
}

// version is a schema that records are written with.
type version struct {
	Schema
	parsed   *avro.Schema
	resolved *avro.Schema // decodes records of this version as the latest one
}

func mustLoad(dirs ...fs.FS) *registry {
	r, err := load(dirs...)
	if err != nil {
		panic(err) // the files are embedded, so an error is a bug
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
	_, digits, _ := strings.Cut(stem, ".v")
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return 0, errors.New("the file's name is not NAME.vN.avsc")
	}
	return int(n), nil
}

// fullName returns the name of a record with its namespace. If the schema is not a
// record's, it returns the type, for example "long".
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
	h.Write(s.Canonical()) // a hash never returns an error
	return h.Sum64()
}

// decode decodes the record of version v after the framing in data into w, which has the
// fields of the latest version. It returns the rest of data.
func (v *version) decode(data []byte, w any) (rest []byte, err error) {
	return v.decodeBody(data[framingSize:], w)
}

// decodeBody is like decode, for a record without framing.
func (v *version) decodeBody(body []byte, w any) (rest []byte, err error) {
	rest, err = v.resolved.Decode(body, w)
	if err != nil {
		return nil, foreign(v.Name, err)
	}
	return rest, nil
}

// find returns the schema version of the record at the start of data. The record must
// have one of the names.
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

// Body returns the rest of data after the framing, whatever the schema is.
func Body(data []byte) ([]byte, error) {
	_, body, err := Cut(data)
	return body, err
}
