package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/catalogue"
	"github.com/morphogenetic/oona/pipeline/aggregate"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/archive"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/windows"
)

var (
	diskSpeed = figure{name: "disk_mb", unit: "MB/s",
		about: "the disk: files of 256 MiB written in pieces of 1 MiB, and synced"}
	archiveSpeed = figure{name: "archive_mb", unit: "MB/s",
		about: "frames from memory into an archive without compression, which is synced"}
	archiveOverDisk = figure{name: "archive_over_disk", goal: 0.5,
		about: "the second over the first"}
	archiveCores = figure{name: "archive_mb_core", unit: "MB/s",
		about: "the same, by processor time"}
	snapshotSpeed = figure{name: "archive_snapshots_mb", unit: "MB/s",
		about: "the same with snapshots, for which the frames are folded"}
	deflateSpeed = figure{name: "archive_deflate_mb", unit: "MB/s", about: "values per second, without snapshots, with the codec deflate"}
	snappySpeed  = figure{name: "archive_snappy_mb", unit: "MB/s", about: "the same with the codec snappy"}
	smallSpeed   = figure{name: "archive_1kb_mb", unit: "MB/s", about: "records of 1 kB into an archive without compression or snapshots"}

	archiveFold = figure{name: "archive_fold_msamples", unit: "M samples/s",
		about: "oona replay --aggregate of an archive of the corpus: rollups again, in a process of its own, by the clock"}
	archiveFoldCore = figure{name: "archive_fold_msamples_core", unit: "M samples/s",
		about: "the same by processor time"}
	archiveFoldMemory = figure{name: "archive_fold_mb", unit: "MB", goal: 512, below: true,
		about: "the greatest resident memory of this process"}
	archiveFoldOverDrain = figure{name: "archive_fold_over_drain", goal: 1,
		about: "archive_fold_msamples over drain_msamples"}
)

// recordLog is a log in memory. Each payload is a record.
type recordLog struct {
	partitions [][][]byte
	start      oona.Micros
}

// inPartitions returns a log of frames. A layer has one partition.
func inPartitions(c *corpus, start oona.Micros) recordLog {
	l := recordLog{make([][][]byte, partitions), start}
	for i, payload := range c.payloads {
		p := &l.partitions[c.layerOf[i]%partitions]
		*p = append(*p, payload)
	}
	return l
}

// quarter returns a log with the first quarter of the records.
func (l recordLog) quarter() recordLog {
	part := recordLog{start: l.start}
	for _, p := range l.partitions {
		part.partitions = append(part.partitions, p[:len(p)/4])
	}
	return part
}

func (l recordLog) ranges() (all []bus.Range) {
	for p, payloads := range l.partitions {
		all = append(all, bus.Range{Partition: int32(p), End: int64(len(payloads))})
	}
	return all
}

func (l recordLog) Extents(_ context.Context, topics ...string) (map[string][]bus.Extent, error) {
	all := make(map[string][]bus.Extent)
	for _, topic := range topics {
		for _, p := range l.partitions {
			all[topic] = append(all[topic], bus.Extent{End: int64(len(p))})
		}
	}
	return all, nil
}

// Read calls take with the records of a range. They were appended a millisecond apart, to the
// partitions in turn.
func (l recordLog) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	key := oona.Key("bench", "encoder.0000")
	payloads, apart := l.partitions[r.Partition], oona.Micros(1000*len(l.partitions))
	for offset := r.From; offset < min(r.End, int64(len(payloads))); offset++ {
		msg := message.NewMessage("", payloads[offset])
		msg.Metadata = message.Metadata{oona.HeaderPath: "bench"}
		at := bus.Position{Topic: topic, Partition: r.Partition, Offset: offset, Appended: l.start + oona.Micros(offset)*apart, Key: key}
		msg.SetContext(bus.WithPosition(ctx, at))
		if err := take(msg); err != nil {
			return err
		}
	}
	return nil
}

func (l recordLog) bytes() (n float64) {
	for _, payloads := range l.partitions {
		for _, p := range payloads {
			n += float64(len(p))
		}
	}
	return n
}

// archiving measures archives.
type archiving struct {
	corpus *corpus
	topics oona.Topics
	frames recordLog
	small  recordLog
	layers int
}

func newArchiving(c *corpus, layers int) (*archiving, error) {
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		return nil, err
	}
	start := windowStart(time.Now())
	c.encode("bench", start)
	a := &archiving{corpus: c, topics: topics, layers: layers, frames: inPartitions(c, start)}
	a.small = recordLog{make([][][]byte, 1), start}
	for _, p := range c.payloads[:min(len(c.payloads), 4096)] {
		for len(p) >= 1000 {
			a.small.partitions[0] = append(a.small.partitions[0], p[:1000])
			p = p[1000:]
		}
	}
	return a, nil
}

func (a *archiving) folder() (*aggregate.Folder, error) {
	known, err := catalogue.Default()
	if err != nil {
		return nil, err
	}
	cfg := aggregate.Config{Worker: "bench", Topics: a.topics, Windows: manyLayers(a.layers), Limits: oona.DefaultFrameLimits}
	return aggregate.NewFolder(cfg, windows.Always(known.Metric), slog.New(slog.DiscardHandler))
}

// write archives a log, and returns how many bytes of values it took per second.
func (a *archiving) write(ctx context.Context, dir string, log recordLog, codec string, folder *aggregate.Folder) (perSecond, perCore float64, err error) {
	archiver := &replay.Archiver{Log: log, Dir: dir, Codec: codec, FileBytes: archiveFileBytes, Folder: folder}
	m := &manifest.Manifest{Form: "archive", Codec: codec}
	used, took, err := metered(func() error {
		return archiver.Write(ctx, m, a.topics.SeedMetrics, true, log.ranges())
	})
	if err != nil {
		return 0, 0, err
	}
	for p, part := range m.Topic(a.topics.SeedMetrics).Partitions {
		var records int64
		for _, f := range part.Files {
			records += f.Records
		}
		if want := len(log.partitions[p]); records != int64(want) {
			return 0, 0, fmt.Errorf("partition %d of the archive has %d records, want %d", p, records, want)
		}
	}
	return log.bytes() / took.Seconds() / 1e6, log.bytes() / used.Seconds() / 1e6, nil
}

// archiveFileBytes is the size of a file, as oona replay has it by default.
const archiveFileBytes = 256 << 20

// measure takes the figures of a round.
func (a *archiving) measure(ctx context.Context, into *figures) (err error) {
	root, err := os.MkdirTemp("", "oona-bench-")
	if err != nil {
		return fmt.Errorf("make a directory for archives: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	disk, err := writeSynced(root, a.frames)
	if err != nil {
		return err
	}
	into.take(diskSpeed, disk)
	part := a.frames.quarter()
	for _, c := range []struct {
		speed, core figure
		log         recordLog
		codec       string
		folds       bool
	}{
		{archiveSpeed, archiveCores, a.frames, "null", false},
		{snapshotSpeed, figure{}, a.frames, "null", true},
		{deflateSpeed, figure{}, part, "deflate", false},
		{snappySpeed, figure{}, part, "snappy", false},
		{smallSpeed, figure{}, a.small, "null", false},
	} {
		var folder *aggregate.Folder
		if c.folds {
			if folder, err = a.folder(); err != nil {
				return err
			}
		}
		dir := filepath.Join(root, c.speed.name)
		perSecond, perCore, err := a.write(ctx, dir, c.log, c.codec, folder)
		if err != nil {
			return err
		}
		into.take(c.speed, perSecond)
		if c.core.name != "" {
			into.take(c.core, perCore)
			into.takeRatio(archiveOverDisk, archiveSpeed, diskSpeed)
		}
		if !c.folds {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return a.fold(ctx, filepath.Join(root, snapshotSpeed.name), into)
}

// writeSynced writes the values of a log into files, and returns the speed in MB/s.
func writeSynced(dir string, log recordLog) (float64, error) {
	name := filepath.Join(dir, "disk")
	piece := make([]byte, 0, 1<<20+1<<16)
	begin := time.Now()
	file, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	written := 0
	payloads := slices.Concat(log.partitions...)
	for i, p := range payloads {
		if piece = append(piece, p...); len(piece) < 1<<20 && i < len(payloads)-1 {
			continue
		}
		if _, err := file.Write(piece); err != nil {
			return 0, errors.Join(err, file.Close())
		}
		written += len(piece)
		piece = piece[:0]
		if written >= archiveFileBytes || i == len(payloads)-1 {
			if err := errors.Join(file.Sync(), file.Close()); err != nil {
				return 0, err
			}
			written = 0
			if i < len(payloads)-1 {
				name = filepath.Join(dir, "disk"+strconv.Itoa(i))
				if file, err = os.Create(name); err != nil {
					return 0, err
				}
			}
		}
	}
	speed := log.bytes() / time.Since(begin).Seconds() / 1e6
	names, err := filepath.Glob(filepath.Join(dir, "disk*"))
	for _, name := range names {
		err = errors.Join(err, os.Remove(name))
	}
	return speed, err
}

// archiveFolded is what the process that folds an archive prints.
type archiveFolded struct {
	Seconds, CPUSeconds, MB float64
	Frames                  int64
	Rollups                 int
}

// fold folds the archive in another process, so that its memory is its own.
func (a *archiving) fold(ctx context.Context, dir string, into *figures) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, "--fold-archive", dir, "--layers", strconv.Itoa(a.layers))
	var messages bytes.Buffer
	cmd.Stderr = &messages
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("fold an archive: %w\n%s", err, bytes.TrimSpace(messages.Bytes()))
	}
	var f archiveFolded
	if err := json.Unmarshal(out, &f); err != nil {
		return fmt.Errorf("parse what folding an archive took: %w", err)
	}
	if f.Frames != int64(a.corpus.distinct) || f.Rollups == 0 {
		return fmt.Errorf("%d frames of the archive were folded into %d rollups, want %d frames", f.Frames, f.Rollups, a.corpus.distinct)
	}
	into.take(archiveFold, a.corpus.samples()/f.Seconds/1e6)
	into.take(archiveFoldCore, a.corpus.samples()/f.CPUSeconds/1e6)
	into.take(archiveFoldMemory, f.MB)
	return nil
}

// foldArchive is the other process.
func foldArchive(ctx context.Context, dir string, layers int) error {
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		return err
	}
	a := &archiving{topics: topics, layers: layers}
	folder, err := a.folder()
	if err != nil {
		return err
	}
	d, err := archive.OpenDirectory(dir)
	if err != nil {
		return err
	}
	extents, err := d.Extents(ctx, topics.SeedMetrics)
	if err != nil {
		return err
	}
	aggregation := &replay.Aggregation{Log: d, Topics: topics, Folder: folder}
	held := extents[topics.SeedMetrics]
	var ranges []bus.Range
	for p, extent := range held {
		ranges = append(ranges, bus.Range{Partition: int32(p), From: extent.Start, End: extent.End})
	}
	var rollups []*replay.Rollups
	used, took, err := metered(func() (err error) {
		rollups, err = aggregation.Partitions(ctx, ranges, held)
		return err
	})
	if err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("read the memory of this process: %w", err)
	}
	f := archiveFolded{Seconds: took.Seconds(), CPUSeconds: used.Seconds(), Frames: folder.Counts().Folded}
	for _, r := range rollups {
		f.Rollups += r.Count(oona.Health)
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscanf(line, "%f", &f.MB); err != nil {
		return fmt.Errorf("parse the memory of this process: %w", err)
	}
	f.MB *= 1024.0 / 1e6
	return json.NewEncoder(os.Stdout).Encode(f)
}
