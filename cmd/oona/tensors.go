package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/replay/archive"
	"github.com/morphogenetic/oona/replay/tensors"
)

type tensorsCommand struct {
	Bus           kafka.Config `embed:"" group:"Bus"`
	Prefix        string       `group:"Bus" placeholder:"PREFIX" help:"Prefix of topic names."`
	MoreTopics    []string     `name:"topic" env:"-" group:"Bus" placeholder:"TOPIC" help:"Another topic with frames, such as one that oona replay --to-topic has written. May be given several times."`
	OtherPrefixes []string     `name:"other-prefix" env:"-" group:"Bus" placeholder:"PREFIX" help:"Prefix of another installation on the same bus that has the same tensor store. May be given several times."`

	Store claimcheck.Config `embed:"" group:"Tensors"`

	Ls     tensorsLs     `cmd:"" help:"List the tensors of the store: when each was stored or last sent again, its size and its SHA-256."`
	Get    tensorsGet    `cmd:"" help:"Write one tensor, verified by its SHA-256."`
	Verify tensorsVerify `cmd:"" help:"Read the tensors of the store, and report which are damaged, which are missing although a record refers to them, and how many no record refers to. The exit status is 1 if any is damaged or missing."`
	GC     tensorsGC     `cmd:"" name:"gc" help:"Find the tensors that are old and that no record refers to, and, with --delete, remove them from the store. All topics with frames are read to their ends: frames, raw frames, late, quarantined and overflowed frames, and dead letters."`
}

func defaultTensors() tensorsCommand {
	return tensorsCommand{Prefix: oona.DefaultPrefix, Store: claimcheck.DefaultConfig()}
}

// Validate is called by kong when flags, environment and file have been read.
func (c *tensorsCommand) Validate() error {
	if c.Store.Kind == claimcheck.KindNone {
		return &oona.FieldError{Field: "--tensor-store", Reason: "is none; give it and its flags the same values as for ingest"}
	}
	for _, prefix := range append([]string{c.Prefix}, c.OtherPrefixes...) {
		if _, err := oona.NewTopics(prefix); err != nil {
			return err
		}
	}
	return c.Store.Validate()
}

// sources are the logs that may refer to tensors.
type sources struct {
	references *tensors.References
	topics     []sourceTopic
	absent     []sourceTopic // optional, and they did not exist when they were counted
	archives   []string
	total      int64 // offsets that the topics have

	bus      bus.Admin
	reading  tensors.Reading
	progress *progress
}

// sourceTopic is a topic of the bus.
type sourceTopic struct {
	name     string
	accepted bool // its frames were accepted by ingest
	expires  bool // its records are deleted by age
	optional bool // it exists only if ingest reads raw frames, or dead letters are sent again
}

// sources returns what has to be read to know which tensors are referred to.
func (c *tensorsCommand) sources(ctx context.Context, b bus.Admin, archives []string, to streams) (*sources, error) {
	s := &sources{references: tensors.NewReferences(), archives: archives, bus: b, progress: newProgress(to.messages)}
	for _, prefix := range append([]string{c.Prefix}, c.OtherPrefixes...) {
		topics, err := oona.NewTopics(prefix)
		if err != nil {
			return nil, err
		}
		for i, specs := range [][]oona.TopicSpec{topics.Specs(0), append(topics.RawSpecs(0), topics.RedrivesSpec())} {
			for _, spec := range specs {
				if schema := topics.Schema(spec.Name); schema != oona.RollupSchema {
					s.topics = append(s.topics, sourceTopic{spec.Name, schema == oona.FrameSchema, !spec.Compacted, i > 0})
				}
			}
		}
	}
	for _, name := range c.MoreTopics {
		s.topics = append(s.topics, sourceTopic{name: name, expires: true})
	}
	s.reading = tensors.Reading{Log: b, Into: s.references, Progress: s.progress.record}
	return s, s.find(ctx)
}

// read reads the archives and all topics to their ends.
func (s *sources) read(ctx context.Context) error {
	s.progress.begin("reading records", s.total)
	defer s.progress.end()
	for _, dir := range s.archives {
		if err := s.readArchive(ctx, dir); err != nil {
			return fmt.Errorf("read the archive %s to its end: %w", dir, err)
		}
	}
	return s.readTopics(ctx, s.topics)
}

func (s *sources) readTopics(ctx context.Context, topics []sourceTopic) error {
	for _, t := range topics {
		err := s.reading.Topic(ctx, t.name, t.accepted)
		if t.optional && errors.Is(err, bus.ErrNoTopic) {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readOn reads the topics from where they were read to their new ends, and those that have
// been created in the meantime.
func (s *sources) readOn(ctx context.Context) error {
	return s.readTopics(ctx, slices.Concat(s.topics, s.absent))
}

// find finds out which of the topics exist, and how many offsets they have. It fails if a
// topic does not exist that every installation has: then the prefix or the bus is probably
// wrong. That a topic does not exist takes some seconds to find out.
func (s *sources) find(ctx context.Context) error {
	var found []sourceTopic
	for _, t := range s.topics {
		extents, err := s.bus.Extents(ctx, t.name)
		if t.optional && errors.Is(err, bus.ErrNoTopic) {
			s.absent = append(s.absent, t)
			continue
		}
		if err != nil {
			return err
		}
		found = append(found, t)
		for _, held := range extents[t.name] {
			s.total += held.End - held.Start
		}
	}
	s.topics = found
	return nil
}

// errNotArchive means that a directory cannot say which tensors its records refer to.
var errNotArchive = errors.New("the directory is not an exact archive")

func (s *sources) readArchive(ctx context.Context, dir string) error {
	d, err := archive.OpenDirectory(dir)
	if err != nil {
		return err
	}
	if form := d.Manifest.Form; form != archiveForm {
		return fmt.Errorf("%w, as oona replay --archive writes it, but %s; list its tensors in a file, and give that with --keep", errNotArchive, form)
	}
	reading := tensors.Reading{Log: d, Into: s.references, Progress: s.progress.record}
	for _, t := range d.Manifest.Topics {
		for _, p := range t.Partitions {
			for _, f := range p.Files {
				if err := errors.Join(ctx.Err(), d.CheckDigest(f)); err != nil {
					return err
				}
			}
		}
		if err := reading.Topic(ctx, t.Name, strings.HasSuffix(t.Name, ".telemetry.seed.metrics")); err != nil {
			return err
		}
	}
	return nil
}

// archiveForm is the form of an exact archive in its manifest.
const archiveForm = "archive"

// aDigest matches the SHA-256 of a tensor, by itself or within a name. Some programs print
// it in capitals.
var aDigest = regexp.MustCompile(`[0-9a-fA-F]{64}`)

// keep counts the tensors that a file names as referred to, and returns how many lines of
// the file name one.
func (s *sources) keep(name string) (lines int64, err error) {
	file, err := os.Open(name)
	if err != nil {
		return 0, fmt.Errorf("read --keep: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 16<<20)
	for number := int64(1); scanner.Scan(); number++ {
		found := aDigest.FindAllString(scanner.Text(), -1)
		for _, text := range found {
			digest, err := parseDigest(text)
			if err != nil {
				return lines, err
			}
			s.references.Add(digest, tensors.Place{Topic: name, Offset: number})
		}
		lines += int64(min(len(found), 1))
	}
	if err := scanner.Err(); err != nil {
		return lines, fmt.Errorf("read --keep %s: %w", name, err)
	}
	return lines, nil
}

func parseDigest(text string) (digest tensors.Digest, err error) {
	if len(text) != hex.EncodedLen(len(digest)) {
		return digest, fmt.Errorf("%.100q is not a SHA-256, which has %d hexadecimal digits", text, hex.EncodedLen(len(digest)))
	}
	if _, err := hex.Decode(digest[:], []byte(text)); err != nil {
		return digest, fmt.Errorf("%.100q is not a SHA-256: %w", text, err)
	}
	return digest, nil
}

func (c *tensorsCommand) open(logger *slog.Logger) (*claimcheck.Store, bus.Bus, error) {
	store, err := claimcheck.Open(c.Store)
	return store, kafka.New(c.Bus, logger), err
}
