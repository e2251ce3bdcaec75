package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/replay"
	"github.com/morphogenetic/oona/replay/archive"
	"github.com/morphogenetic/oona/replay/parquet"
	"github.com/morphogenetic/oona/replay/typed"
)

type replayVerify struct {
	Dir     string `arg:"" help:"Directory that a replay has written."`
	Offline bool   `env:"-" help:"Do not compare the directory with the log."`
	JSON    bool   `name:"json" env:"-" help:"Print the result as JSON."`
}

// errArchiveFaults is returned if a directory is not as its manifest, or the log, says.
var errArchiveFaults = errors.New("the directory has faults")

// Run verifies.
func (v *replayVerify) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	var log replay.Log
	if !v.Offline {
		log = kafka.New(c.Replay.Bus, logger)
	}
	found, err := v.verify(ctx, log)
	if err != nil {
		return err
	}
	if v.JSON {
		err = writeJSON(to.out, found)
	} else {
		for _, f := range found.Faults {
			fmt.Fprintln(to.out, f)
		}
		fmt.Fprintf(to.out, "%d records in %d files, %d faults\n", found.Records, found.Files, len(found.Faults))
		if log != nil {
			fmt.Fprintf(to.out, "%d records were compared with those of the log; the log no longer has %d\n", found.Compared, found.Deleted)
		}
	}
	if err == nil && len(found.Faults) > 0 {
		err = errArchiveFaults
	}
	return err
}

// verify verifies a directory by its form.
func (v *replayVerify) verify(ctx context.Context, log replay.Log) (replay.Verified, error) {
	d, err := archive.OpenDirectory(v.Dir)
	if err != nil {
		return replay.Verified{}, err
	}
	if d.Manifest.Form == archiveForm {
		return replay.Verify(ctx, d, log)
	}
	if d.Manifest.Form == typed.Form {
		return typed.Verify(ctx, v.Dir, log)
	}
	return parquet.Verify(ctx, v.Dir, log)
}
