package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

var (
	fioSpeed = figure{name: "disk_fio_mb", unit: "MB/s",
		about: "the disk as fio measures it: batches of the size of spool_batch_kb, each written and synced"}
	spoolOverFio = figure{name: "spool_append_over_fio", goal: 0.5,
		about: "spool_append_mb over that"}
)

// measureFio takes the figures of fio, with as many bytes and in such batches as the spool had.
func measureFio(ctx context.Context, program, parent string, total, batch int64, into *figures) (err error) {
	dir, err := os.MkdirTemp(parent, "fio-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// A file is a whole number of batches, as fio does not write less than one.
	file := (plainFile + batch - 1) / batch * batch
	files := (total + file - 1) / file
	var out, messages bytes.Buffer
	run := exec.CommandContext(ctx, program, "--name=spool", "--directory="+dir, "--output-format=json",
		"--rw=write", "--ioengine=sync", "--fdatasync=1", "--fallocate=none", "--thread",
		"--file_service_type=sequential", fmt.Sprintf("--nrfiles=%d", files), fmt.Sprintf("--filesize=%d", file),
		fmt.Sprintf("--size=%d", files*file), fmt.Sprintf("--bs=%d", batch))
	run.Stdout, run.Stderr = &out, &messages
	if err := run.Run(); err != nil {
		return fmt.Errorf("run fio: %w\n%s%s", err, bytes.TrimSpace(messages.Bytes()), bytes.TrimSpace(out.Bytes()))
	}
	speed, err := parseFio(out.Bytes(), files*file)
	if err != nil {
		return err
	}
	into.take(fioSpeed, speed)
	into.takeRatio(spoolOverFio, spoolAppend, fioSpeed)
	return nil
}

// parseFio returns the speed that fio reports for its only job, in MB/s. It is an error if the job
// has not written total bytes, or has not synced after each write.
func parseFio(report []byte, total int64) (speed float64, err error) {
	var run struct {
		Jobs []struct {
			Error int `json:"error"`
			Write struct {
				Bytes  int64   `json:"io_bytes"`
				Speed  float64 `json:"bw_bytes"`
				Writes int64   `json:"total_ios"`
			} `json:"write"`
			Sync struct {
				// N is the number of syncs; fio 3.33 leaves total_ios of sync at 0.
				Latency struct {
					N int64 `json:"N"`
				} `json:"lat_ns"`
			} `json:"sync"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(report, &run); err != nil {
		return 0, fmt.Errorf("read the report of fio: %w", err)
	}
	if len(run.Jobs) != 1 {
		return 0, fmt.Errorf("the report of fio has %d jobs, want 1", len(run.Jobs))
	}
	job := run.Jobs[0]
	syncs := job.Sync.Latency.N
	switch {
	case job.Error != 0:
		return 0, fmt.Errorf("fio has failed with error %d", job.Error)
	case job.Write.Bytes != total:
		return 0, fmt.Errorf("fio has written %d bytes, want %d", job.Write.Bytes, total)
	case syncs < job.Write.Writes-1: // it does not sync after the last
		return 0, fmt.Errorf("fio has synced %d times after %d writes", syncs, job.Write.Writes)
	case job.Write.Speed <= 0:
		return 0, fmt.Errorf("fio reports a speed of %g B/s", job.Write.Speed)
	}
	return job.Write.Speed / 1e6, nil
}
