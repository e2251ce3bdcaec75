package main

import (
	"context"
	"errors"

	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/replay/manifest"
	"github.com/morphogenetic/oona/replay/typed"
)

type replayAvro struct {
	Avro      string `env:"-" group:"What to do" placeholder:"DIR" help:"Write frames, rollups and events to Avro files, of the latest version of their schemas, without keys and headers. If the directory has some already, they are continued."`
	AvroCodec string `env:"-" group:"Avro" default:"zstandard" enum:"null,deflate,snappy,zstandard" placeholder:"null|deflate|snappy|zstandard" help:"Compression of the blocks of these files."`
}

// avro writes typed records.
func (r *replayRun) avro(ctx context.Context, job *replaying, to streams) (err error) {
	lock, err := manifest.Lock(r.Avro.Avro)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	output := &typed.Output{
		Dir: r.Avro.Avro, Oona: worker.ReadBuild().Version,
		Options: typed.Options{Codec: r.Avro.AvroCodec, FileBytes: int64(r.FileSize), Selection: r.Select.selection()},
	}
	resolved, err := r.Tensors.output(job, output, r.Avro.Avro)
	if err != nil {
		return err
	}
	read, err := r.extract(ctx, job, resolved)
	resolved.report(to.messages)
	if err != nil {
		return err
	}
	return errors.Join(printTables(to.out, output.Manifest(), r.JSON), read.nothing)
}
