package tensors_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/replay/tensors"
)

func openStore(t *testing.T) *claimcheck.Store {
	t.Helper()
	store, err := claimcheck.OpenDirectory(t.TempDir(), "kasmina-tensors", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// claimed puts the data of a tensor into the store.
func claimed(t *testing.T, store *claimcheck.Store, tensor oona.Tensor) oona.Tensor {
	t.Helper()
	claim, _, err := store.CheckIn(t.Context(), bytes.NewReader(tensor.Data))
	if err != nil {
		t.Fatal(err)
	}
	tensor.Data, tensor.Claim = nil, &claim
	return tensor
}

// counting counts the tensors that are fetched.
type counting struct {
	*claimcheck.Store
	fetched atomic.Int64
}

func (c *counting) CheckOut(ctx context.Context, claim oona.TensorClaim) (io.ReadCloser, error) {
	c.fetched.Add(1)
	return c.Store.CheckOut(ctx, claim)
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, tensors.Folder))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestFrame(t *testing.T) {
	store := &counting{Store: openStore(t)}
	inline := oona.Tensor{Name: "bias", DType: "float32", Shape: []int64{2}, Data: bytes.Repeat([]byte{1}, 8)}
	kept := claimed(t, store.Store, oona.Tensor{Name: "weights", DType: "float32", Shape: []int64{2, 3}, Data: bytes.Repeat([]byte{2}, 24)})
	turned := kept // the same bytes with another shape
	turned.Shape = []int64{3, 2}
	frame := &oona.Frame{Run: "r", Layer: "l", Tensors: []oona.Tensor{inline, kept, turned}}
	r := &tensors.Resolver{Store: store, Dir: t.TempDir()}
	if err := r.Frame(t.Context(), frame); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, tensor := range frame.Tensors {
		digest, _ := tensors.DigestOf(&tensor)
		want = append(want, tensors.FileName(digest, tensor.DType, tensor.Shape))
	}
	slices.Sort(want)
	if got := files(t, r.Dir); !slices.Equal(got, want) {
		t.Errorf("the files are %q, want %q", got, want)
	}
	if want := (tensors.Counts{Written: 3, Bytes: 56}); r.Counts != want {
		t.Errorf("the counts are %+v, want %+v", r.Counts, want)
	}
	content, err := os.ReadFile(filepath.Join(r.Dir, tensors.Folder, tensors.FileName(kept.Claim.SHA256, "float32", kept.Shape)))
	if err != nil || sha256.Sum256(content[len(content)-24:]) != kept.Claim.SHA256 {
		t.Errorf("the elements are not those of the claim: %x, error %v", content, err)
	}

	// A tensor whose file exists is not fetched again, not even by another Resolver.
	fetched := store.fetched.Load()
	again := &tensors.Resolver{Store: store, Dir: r.Dir}
	if err := again.Frame(t.Context(), frame); err != nil || store.fetched.Load() != fetched || again.Counts != (tensors.Counts{Present: 3}) {
		t.Errorf("again: %d fetched, counts %+v, error %v", store.fetched.Load()-fetched, again.Counts, err)
	}
	// A file that is too short was not written by a Resolver.
	short := filepath.Join(r.Dir, tensors.Folder, want[0])
	if err := os.Truncate(short, 100); err != nil {
		t.Fatal(err)
	}
	again.Counts = tensors.Counts{}
	if err := again.Frame(t.Context(), frame); err != nil || again.Counts.Written != 1 || again.Counts.Present != 2 {
		t.Errorf("a file was short: counts %+v, error %v", again.Counts, err)
	}
}

// A tensor that cannot be resolved leaves no file. Frame returns the error, or passes it to Lost and
// writes the other tensors.
func TestLost(t *testing.T) {
	dir := t.TempDir()
	store, err := claimcheck.OpenDirectory(dir, "kasmina-tensors", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	tensor := func(b byte) oona.Tensor {
		return claimed(t, store, oona.Tensor{Name: "w", DType: "uint8", Shape: []int64{50}, Data: bytes.Repeat([]byte{b}, 50)})
	}
	gone, damaged, foreign, good := tensor(1), tensor(2), tensor(3), tensor(4)
	object := func(x oona.Tensor) string { return filepath.Join(dir, filepath.FromSlash(x.Claim.Key)) }
	if err := errors.Join(os.Remove(object(gone)), os.Remove(object(damaged)), os.WriteFile(object(damaged), bytes.Repeat([]byte{9}, 50), 0o600)); err != nil {
		t.Fatal(err)
	}
	foreign.Claim.Bucket = "another"
	for what, c := range map[string]struct {
		tensor oona.Tensor
		want   error
	}{"gone": {gone, claimcheck.ErrNotFound}, "damaged": {damaged, claimcheck.ErrMismatch}, "foreign": {foreign, claimcheck.ErrForeign}} {
		frame := &oona.Frame{Tensors: []oona.Tensor{c.tensor, good}}
		r := &tensors.Resolver{Store: store, Dir: t.TempDir()}
		if err := r.Frame(t.Context(), frame); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
		var told []error
		r.Lost = func(_ *oona.Frame, lost *oona.Tensor, why error) {
			if lost != &frame.Tensors[0] {
				t.Errorf("%s: another tensor is lost", what)
			}
			told = append(told, why)
		}
		r.Counts = tensors.Counts{}
		if err := r.Frame(t.Context(), frame); err != nil || len(told) != 1 || !errors.Is(told[0], c.want) || r.Counts.Lost != 1 || r.Counts.Written+r.Counts.Present != 1 {
			t.Errorf("%s: %v; told %v, counts %+v", what, err, told, r.Counts)
		}
		if got := files(t, r.Dir); len(got) != 1 {
			t.Errorf("%s: the files are %q", what, got)
		}
	}
	// An outage is temporary, so Frame always returns its error.
	r := &tensors.Resolver{Store: away{}, Dir: t.TempDir(), Lost: func(*oona.Frame, *oona.Tensor, error) { t.Error("a tensor is lost because the store does not answer") }}
	if err := r.Frame(t.Context(), &oona.Frame{Tensors: []oona.Tensor{good}}); !errors.Is(err, claimcheck.ErrUnavailable) {
		t.Errorf("with a store that does not answer: %v", err)
	}
	if err := (&tensors.Resolver{Dir: t.TempDir()}).Frame(t.Context(), &oona.Frame{Tensors: []oona.Tensor{good}}); err == nil {
		t.Error("a claim was resolved without a store")
	}
}

type away struct{}

func (away) CheckOut(context.Context, oona.TensorClaim) (io.ReadCloser, error) {
	return nil, claimcheck.ErrUnavailable
}

// Temporary files of a killed process are removed after a day.
func TestAbandoned(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, tensors.Folder)
	old, young := filepath.Join(folder, "old.tmp"), filepath.Join(folder, "young.tmp")
	err := errors.Join(os.Mkdir(folder, 0o700), os.WriteFile(old, nil, 0o600), os.WriteFile(young, nil, 0o600), os.Chtimes(old, time.Time{}, time.Now().Add(-25*time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	frame := &oona.Frame{Tensors: []oona.Tensor{{DType: "bool", Data: []byte{1}}}}
	if err := (&tensors.Resolver{Dir: dir}).Frame(t.Context(), frame); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); len(got) != 2 || !slices.Contains(got, "young.tmp") {
		t.Errorf("the files are %q", got)
	}
}

func TestHeader(t *testing.T) {
	for _, shape := range [][]int64{nil, {0}, {1}, {17}, {2, 3}, {1 << 62, 0, 1 << 62}, slices.Repeat([]int64{1}, oona.MaxDimensions)} {
		header, err := tensors.Header("float64", shape)
		if err != nil || len(header)%64 != 0 || header[len(header)-1] != '\n' {
			t.Errorf("%v: the header is %q, error %v", shape, header, err)
		}
		if name := tensors.FileName([32]byte{}, "bfloat16", shape); len(name) > 255 {
			t.Errorf("%v: the name %s has %d bytes", shape, name, len(name))
		}
	}
	for field, one := range map[string]struct {
		dtype string
		shape []int64
	}{"dtype": {"complex64", nil}, "shape": {"bool", []int64{-1}}} {
		_, err := tensors.Header(one.dtype, one.shape)
		if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != field {
			t.Errorf("%s: the error is %v", field, err)
		}
	}
}

// NumPy reads the files of each type, with the right shapes and values.
func TestNumPy(t *testing.T) {
	python := requireNumPy(t)
	store := openStore(t)
	one := map[string]struct {
		data []byte // the elements 1, 2, 3
		read string
	}{
		"bool": {[]byte{1, 0, 1}, "|b1"}, "int8": {[]byte{1, 2, 3}, "|i1"}, "uint8": {[]byte{1, 2, 3}, "|u1"},
		"float16": {[]byte{0, 0x3c, 0, 0x40, 0, 0x42}, "<f2"}, "bfloat16": {[]byte{0x80, 0x3f, 0, 0x40, 0x40, 0x40}, "|V2"},
		"int16": {[]byte{1, 0, 2, 0, 3, 0}, "<i2"}, "uint16": {[]byte{1, 0, 2, 0, 3, 0}, "<u2"},
		"float32": {[]byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0x40, 0x40}, "<f4"},
		"int32":   {[]byte{1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}, "<i4"}, "uint32": {[]byte{1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}, "<u4"},
		"float64": {[]byte{0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 8, 0x40}, "<f8"},
		"int64":   {append(append(append([]byte{1}, make([]byte, 7)...), append([]byte{2}, make([]byte, 7)...)...), append([]byte{3}, make([]byte, 7)...)...), "<i8"},
		"uint64":  {append(append(append([]byte{1}, make([]byte, 7)...), append([]byte{2}, make([]byte, 7)...)...), append([]byte{3}, make([]byte, 7)...)...), "<u8"},
	}
	dir := t.TempDir()
	r := &tensors.Resolver{Store: store, Dir: dir}
	type expectation struct {
		dtype  string
		shape  []int64
		values []float64
		sha256 string
	}
	want := make(map[string]expectation)
	for dtype, c := range one {
		size, known := oona.ElementSize(dtype)
		if !known {
			t.Fatalf("%s is no type", dtype)
		}
		values := []float64{1, 2, 3}
		if dtype == "bool" {
			values = []float64{1, 0, 1}
		}
		for _, x := range []struct {
			n     int64
			shape []int64
		}{{1, []int64{}}, {3, []int64{3}}, {3, []int64{1, 3}}, {3, []int64{3, 1, 1}}, {0, []int64{0, 4}}} {
			tensor := claimed(t, store, oona.Tensor{Name: "w", DType: dtype, Shape: x.shape, Data: c.data[:x.n*size]})
			if err := r.Frame(t.Context(), &oona.Frame{Tensors: []oona.Tensor{tensor}}); err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(dir, tensors.Folder, tensors.FileName(tensor.Claim.SHA256, dtype, x.shape))
			want[name] = expectation{c.read, x.shape, values[:x.n], hex.EncodeToString(tensor.Claim.SHA256[:])}
		}
	}
	if len(one) != 13 || len(want) != 5*len(one) {
		t.Errorf("%d types, %d files", len(one), len(want))
	}
	arguments := []string{filepath.Join("testdata", "load.py")}
	for name := range want {
		arguments = append(arguments, name)
	}
	cmd := exec.CommandContext(t.Context(), python, arguments...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var got map[string]struct {
		DType  string
		Shape  []int64
		Values []float64
		COrder bool `json:"c_order"`
		SHA256 string
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	for name, w := range want {
		g := got[name]
		if g.DType != w.dtype || !slices.Equal(g.Shape, w.shape) || !slices.Equal(g.Values, w.values) || !g.COrder || g.SHA256 != w.sha256 {
			t.Errorf("%s: NumPy reads %+v, want %+v", filepath.Base(name), g, w)
		}
	}
}

// requireNumPy returns a Python with NumPy. Without one it skips the test, or fails it if
// OONA_REQUIRE_PYTHON is set.
func requireNumPy(t *testing.T) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err == nil {
		err = exec.CommandContext(t.Context(), python, "-c", "import numpy").Run()
	}
	if err == nil {
		return python
	}
	if os.Getenv("OONA_REQUIRE_PYTHON") != "" {
		t.Fatalf("OONA_REQUIRE_PYTHON is set, but Python with NumPy does not run: %v", err)
	}
	t.Skipf("SKIPPED, the .npy files were NOT read with NumPy: Python with NumPy does not run (%v); run make python", err)
	return ""
}
