package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/replay/tensors"
)

type tensorsGet struct {
	Which  string  `arg:"" name:"tensor" help:"The tensor to fetch: its SHA-256, its key, its claim as JSON, or the tensor with its claim as oona watch --json prints it."`
	Output string  `short:"o" env:"-" placeholder:"FILE" help:"File to write. Default: standard output."`
	NPY    bool    `name:"npy" env:"-" help:"Write a .npy file for NumPy. If type and shape are not given, the topics are read up to a record that has them."`
	DType  string  `name:"dtype" env:"-" placeholder:"TYPE" help:"With --npy, type of the elements, for example float32."`
	Shape  []int64 `env:"-" placeholder:"N" help:"With --npy, dimensions, for example 64,64. Default with --dtype: one dimension."`
}

// Validate is called by kong when flags, environment and file have been read.
func (g *tensorsGet) Validate() error {
	if !g.NPY && (g.DType != "" || len(g.Shape) > 0) {
		return errors.New("--dtype and --shape are for --npy")
	}
	if g.DType == "" && len(g.Shape) > 0 {
		return errors.New("--shape needs --dtype")
	}
	_, err := parseTensor(g.Which)
	return err
}

// parseTensor parses an argument that names a tensor. It has a claim without a bucket, or
// with a size of -1, where the argument does not say.
func parseTensor(text string) (t oona.Tensor, err error) {
	text = strings.TrimSpace(text)
	if digest, ok := claimcheck.ParseKey(text); ok {
		return oona.Tensor{Claim: &oona.TensorClaim{Key: text, Size: -1, SHA256: digest}}, nil
	}
	if !strings.HasPrefix(text, "{") {
		digest, err := parseDigest(text)
		if err != nil {
			return t, &oona.FieldError{Field: "tensor", Reason: err.Error() + "; give a SHA-256, a key or a claim"}
		}
		return oona.Tensor{Claim: &oona.TensorClaim{Key: claimcheck.Key(digest), Size: -1, SHA256: digest}}, nil
	}
	type claim struct {
		Bucket, Key, SHA256 string
		Size                int64
	}
	var given struct {
		claim
		DType string
		Shape []int64
		Data  *claim
	}
	if err := json.Unmarshal([]byte(text), &given); err != nil {
		return t, &oona.FieldError{Field: "tensor", Reason: fmt.Sprintf("is neither a claim nor a tensor with its claim: %v", err)}
	}
	if given.Data == nil {
		given.Data = &given.claim
	}
	digest, err := parseDigest(given.Data.SHA256)
	if err != nil {
		return t, &oona.FieldError{Field: "tensor", Reason: "is a claim whose sha256 " + err.Error()}
	}
	return oona.Tensor{DType: given.DType, Shape: given.Shape, Claim: &oona.TensorClaim{Bucket: given.Data.Bucket, Key: given.Data.Key, Size: given.Data.Size, SHA256: digest}}, nil
}

// Run writes a tensor.
func (g *tensorsGet) Run(ctx context.Context, c *grammar, to streams, logger *slog.Logger) error {
	tensor, err := parseTensor(g.Which)
	if err != nil {
		return err
	}
	if g.Output == "" && terminalSize(to.out) != nil {
		return errors.New("the output is a terminal, and a tensor is not text; give --output FILE")
	}
	store, b, err := c.Tensors.open(logger)
	if err != nil {
		return err
	}
	claim := *tensor.Claim
	if claim.Size < 0 {
		object, err := store.Stat(ctx, claim.SHA256)
		if err != nil {
			return err
		}
		claim = store.Of(object)
	}
	data, err := store.Bytes(ctx, claim)
	if err != nil || !g.NPY {
		return errors.Join(err, g.write(to.out, data, err))
	}
	if g.DType != "" {
		tensor.DType, tensor.Shape = g.DType, g.Shape
	}
	if tensor.DType == "" {
		from, err := c.Tensors.sources(ctx, b, nil, to)
		if err != nil {
			return err
		}
		found, err := from.describe(ctx, claim.SHA256)
		if err != nil {
			return err
		}
		tensor.DType, tensor.Shape = found.DType, found.Shape
	}
	header, err := g.header(tensor, int64(len(data)))
	if err != nil {
		return err
	}
	return g.write(to.out, append(header, data...), nil)
}

// header returns the header of the .npy file.
func (g *tensorsGet) header(t oona.Tensor, size int64) ([]byte, error) {
	element, known := oona.ElementSize(t.DType)
	if known && g.DType != "" && g.Shape == nil {
		t.Shape = []int64{size / element}
	}
	header, err := tensors.Header(t.DType, t.Shape)
	if err != nil {
		return nil, err
	}
	want := element
	for _, n := range t.Shape {
		want *= n
	}
	if want != size {
		return nil, &oona.FieldError{Field: "shape", Reason: fmt.Sprintf("%v of %s is %d bytes, and the tensor has %d", t.Shape, t.DType, want, size)}
	}
	return header, nil
}

// write writes a whole file, or to standard output.
func (g *tensorsGet) write(out io.Writer, data []byte, failed error) error {
	if failed != nil {
		return nil
	}
	if g.Output == "" {
		_, err := out.Write(data)
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(g.Output), ".oona-*.tmp")
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Chmod(0o644), file.Close()); err == nil {
		err = os.Rename(file.Name(), g.Output)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(file.Name()))
	}
	return err
}

// errNoShape means that no record says what a tensor's type and shape are.
var errNoShape = errors.New("no frame on the topics refers to the tensor, so its type and shape are not known; give --dtype and --shape")

// describe reads the topics up to a frame that refers to the tensor.
func (s *sources) describe(ctx context.Context, digest tensors.Digest) (oona.Tensor, error) {
	found := func() bool { use := s.references.Uses[digest]; return use != nil && use.Tensor != nil }
	reading, stop := context.WithCancel(ctx)
	defer stop()
	s.reading.Progress = func() {
		s.progress.record()
		if found() {
			stop()
		}
	}
	err := s.read(reading)
	switch {
	case found():
		return *s.references.Uses[digest].Tensor, nil
	case err != nil:
		return oona.Tensor{}, err
	}
	return oona.Tensor{}, errNoShape
}
