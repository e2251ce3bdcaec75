package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/pipeline/remotewrite"
)

// openMetrics writes the samples of rollups as OpenMetrics text with times, for promtool
// tsdb create-blocks-from openmetrics. Names and labels are those of remote write. The
// samples of a series ascend in time, as windows do. Histograms are left out: the text has
// no native ones.
type openMetrics struct {
	prefix string
	path   string
	file   *os.File
	out    *bufio.Writer
	line   []byte
}

// openOpenMetrics creates a file that gets its name when it is whole.
func openOpenMetrics(path, prefix string) (*openMetrics, error) {
	file, err := os.Create(path + ".partial")
	if err != nil {
		return nil, fmt.Errorf("--openmetrics: %w", err)
	}
	return &openMetrics{prefix: prefix, path: path, file: file, out: bufio.NewWriterSize(file, 1<<20)}, nil
}

// escaped escapes the value of a label.
var escaped = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func (o *openMetrics) Rollup(_ int32, r *oona.Rollup) error {
	for _, s := range remotewrite.Samples(o.prefix, len(worstOf(r)), r) {
		o.line = o.line[:0]
		for _, l := range s.Labels {
			if l.Name == "__name__" {
				o.line = append(append(o.line, l.Value...), '{')
			}
		}
		first := true
		for _, l := range s.Labels {
			if l.Name == "__name__" {
				continue
			}
			if !first {
				o.line = append(o.line, ',')
			}
			first = false
			o.line = append(append(append(o.line, l.Name...), `="`...), escaped.Replace(l.Value)...)
			o.line = append(o.line, '"')
		}
		o.line = append(o.line, "} "...)
		o.line = strconv.AppendFloat(o.line, s.Samples[0].Value, 'g', -1, 64)
		o.line = append(o.line, ' ')
		o.line = strconv.AppendFloat(o.line, float64(s.Samples[0].Timestamp)/1e3, 'f', 3, 64)
		if _, err := o.out.Write(append(o.line, '\n')); err != nil {
			return fmt.Errorf("write samples: %w", err)
		}
	}
	return nil
}

// worstOf returns the longest list of worst seeds of a rollup.
func worstOf(r *oona.Rollup) (longest []oona.SeedValue) {
	for i := range r.Metrics {
		if w := r.Metrics[i].Worst; len(w) > len(longest) {
			longest = w
		}
	}
	return longest
}

// Close ends the text, and gives the file its name.
func (o *openMetrics) Close() error {
	_, err := o.out.WriteString("# EOF\n")
	if err = errors.Join(err, o.out.Flush(), o.file.Sync(), o.file.Close()); err == nil {
		err = os.Rename(o.file.Name(), o.path)
	}
	if err != nil {
		return fmt.Errorf("--openmetrics: %w", err)
	}
	return nil
}

// Abort removes the file.
func (o *openMetrics) Abort() error { return errors.Join(o.file.Close(), os.Remove(o.file.Name())) }

func (o *openMetrics) results(to streams) io.Writer { return to.out }
