package claimcheck

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
)

// Verify returns a reader of r's content that ends with an error that wraps
// ErrMismatch, in place of io.EOF, where the content's SHA-256 is another than
// want.
func Verify(r io.Reader, want [sha256.Size]byte) io.Reader {
	return &verifier{content: r, hash: sha256.New(), want: want}
}

type verifier struct {
	content io.Reader
	hash    hash.Hash
	want    [sha256.Size]byte
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.content.Read(p)
	v.hash.Write(p[:n])
	if err == io.EOF {
		if got := [sha256.Size]byte(v.hash.Sum(nil)); got != v.want {
			return n, fmt.Errorf("%w: its SHA-256 is %x, not %x", ErrMismatch, got, v.want)
		}
	}
	return n, err
}
