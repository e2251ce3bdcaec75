package claimcheck

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
)

// Verify returns a reader of r's content. If the SHA-256 of the content is not
// want, its last Read returns an error that wraps ErrMismatch instead of io.EOF.
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
