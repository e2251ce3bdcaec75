package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/alecthomas/units"

	"github.com/morphogenetic/oona/internal/settings"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/windows"
)

// errOptions is returned if an archive was begun with other options.
var errOptions = errors.New("the archive was begun with other options; give the same, or use another directory")

func (r *replayRun) archive(ctx context.Context, job *replaying, to streams) (err error) {
	lock, err := manifest.Lock(r.Archive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	m, err := r.manifest(job)
	if err != nil {
		return err
	}
	plan, err := r.plan(ctx, job)
	if err != nil {
		return err
	}
	if err := r.fits(ctx, job, plan); err != nil {
		return err
	}
	if err := r.write(ctx, job, to, m, plan); err != nil {
		return err
	}
	return printArchive(to.out, m, r.JSON)
}

// write writes the archive of what is planned.
func (r *replayRun) write(ctx context.Context, job *replaying, to streams, m *manifest.Manifest, plan []planned) error {
	log, watching, err := r.watched(job, plan)
	if err != nil {
		return err
	}
	defer watching.end()
	a := &replay.Archiver{Log: log, Dir: r.Archive, Codec: m.Codec, FileBytes: int64(r.FileSize), Commits: job.commits, Beginnings: job.beginnings(),
		Unknown: func(topic string, partition int32, why error) {
			watching.end()
			fmt.Fprintf(to.messages, "oona: %s/%d: no snapshot: %v; --aggregate can compute only later windows from this partition of the archive\n", topic, partition, why)
		}}
	if r.Snapshot {
		if a.Folder, err = job.folder(ctx, m); err != nil {
			return err
		}
	}
	for _, topic := range job.sources {
		err = a.Write(ctx, m, topic, topic == job.topics.SeedMetrics, rangesOf(plan, topic))
		if err != nil && ctx.Err() != nil {
			return fmt.Errorf("interrupted; %s has what is finished, and the same command continues it: %w", r.Archive, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// manifest returns the manifest of the archive, which is a new one if there is none. The
// error wraps errOptions.
func (r *replayRun) manifest(job *replaying) (*manifest.Manifest, error) {
	settings, err := json.Marshal(r.Windows)
	if err != nil {
		return nil, fmt.Errorf("write the windows into the manifest: %w", err)
	}
	if job.held != nil && len(job.held.Manifest.Windows) > 0 {
		settings = job.held.Manifest.Windows
	}
	asked := &manifest.Manifest{Form: archiveForm, Codec: r.Codec, Snapshots: r.Snapshot, Windows: settings}
	m, err := manifest.Read(r.Archive)
	if errors.Is(err, manifest.ErrNone) {
		m, err = asked, nil
	}
	if err != nil {
		return nil, err
	}
	m.Oona = worker.ReadBuild().Version
	switch {
	case m.Form != asked.Form:
		err = fmt.Errorf("%w: form is %q, and --archive writes %q", errOptions, m.Form, asked.Form)
	case m.Codec != asked.Codec:
		err = fmt.Errorf("%w: codec is %s, and --codec is %s", errOptions, m.Codec, asked.Codec)
	case m.Snapshots != asked.Snapshots:
		err = fmt.Errorf("%w: snapshots is %t, and --snapshot is %t", errOptions, m.Snapshots, asked.Snapshots)
	case !sameJSON(m.Windows, asked.Windows):
		err = fmt.Errorf("%w: windows are %s, and the flags and variables say %s", errOptions, compact(m.Windows), asked.Windows)
	}
	return m, err
}

func sameJSON(a, b json.RawMessage) bool { return compact(a) == compact(b) }

// compact returns JSON without white space.
func compact(text json.RawMessage) string {
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		return string(text)
	}
	return out.String()
}

// beginnings returns what is known of partitions whose beginning is lost.
func (r *replaying) beginnings() replay.Beginnings {
	if r.held != nil {
		given := r.Run.Windows
		if err := json.Unmarshal(r.held.Manifest.Windows, &given); err != nil {
			r.logger.Warn("the manifest does not say the windows; the flags do", "err", err)
		}
		return replay.BeginningsIn(r.held, r.topics.SeedMetrics, given)
	}
	log := settings.Log{Bus: r.bus, Topics: r.topics}
	return func(ctx context.Context, partition int32) (replay.Beginning, error) {
		known := replay.Beginning{Windows: windows.Configuration{Config: r.Run.Windows}}
		last, found, err := log.LastWindows(ctx, partition)
		if err == nil && found {
			known.Windows, err = windows.ConfigurationOf(&last)
		}
		if err == nil {
			known.Incarnation, err = log.LastIncarnation(ctx, partition)
		}
		if err != nil {
			return known, fmt.Errorf("find out what %s/%d was before its log begins: %w", r.topics.SeedMetrics, partition, err)
		}
		if !found {
			r.logger.Warn("the settings topic does not say the windows of the partition; the flags do", "partition", partition, slog.Any("windows", r.Run.Windows))
		}
		return known, nil
	}
}

func printArchive(w io.Writer, m *manifest.Manifest, asJSON bool) error {
	if asJSON {
		return writeJSON(w, m)
	}
	for _, t := range m.Topics {
		var records, bytes int64
		files := 0
		for _, p := range t.Partitions {
			for _, f := range p.Files {
				records, bytes, files = records+f.Records, bytes+f.Bytes, files+1
			}
		}
		fmt.Fprintf(w, "%s: %d records in %d files of %s\n", t.Name, records, files, units.Base2Bytes(bytes).Round(1))
	}
	return nil
}
