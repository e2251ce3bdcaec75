package embedded

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strings"

	"github.com/rclone/gofakes3"

	"github.com/morphogenetic/oona/claimcheck"
)

// upload has the entity tags of an upload's parts, by number. The parts are files in
// a directory below incoming, as gofakes3 would keep them in memory.
type upload map[int]string

// payload is the context key of the SHA-256 in the signature of a request. gofakes3
// verifies it for objects, but not for parts.
type payload struct{}

func withPayload(ctx context.Context, h http.Header) context.Context {
	digest, err := hex.DecodeString(h.Get("X-Amz-Content-Sha256"))
	if err != nil || len(digest) != sha256.Size {
		return ctx
	}
	return context.WithValue(ctx, payload{}, [sha256.Size]byte(digest))
}

func partName(id gofakes3.UploadID, number int) string {
	return path.Join(incoming, string(id), fmt.Sprintf("%05d", number))
}

// CreateMultipartUpload and the exported methods below implement
// gofakes3.MultipartBackend.
func (f *files) CreateMultipartUpload(_ context.Context, bucket, key string, _ map[string]string) (gofakes3.UploadID, error) {
	if _, err := f.name(bucket, key); err != nil {
		return "", err
	}
	id := gofakes3.UploadID(rand.Text())
	if err := f.root.Mkdir(path.Join(incoming, string(id)), 0o750); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.uploads[id] = make(upload)
	return id, nil
}

func (f *files) UploadPart(ctx context.Context, _, _ string, id gofakes3.UploadID, number int, size int64, body io.Reader) (string, error) {
	written := path.Join(incoming, string(id), rand.Text())
	defer func() { _ = f.root.Remove(written) }() // fails if the file was renamed
	if digest, ok := ctx.Value(payload{}).([sha256.Size]byte); ok {
		body = claimcheck.Verify(body, digest)
	}
	if err := f.write(written, body, size); errors.Is(err, claimcheck.ErrMismatch) {
		return "", gofakes3.ErrBadDigest
	} else if err != nil {
		return "", err
	}
	info, err := f.root.Stat(written)
	if err != nil {
		return "", err
	}
	etag := quoted(tag(info))
	f.mu.Lock()
	defer f.mu.Unlock()
	parts, ok := f.uploads[id]
	if !ok {
		return "", gofakes3.ErrNoSuchUpload
	}
	if err := f.root.Rename(written, partName(id, number)); err != nil {
		return "", err
	}
	parts[number] = etag
	return etag, nil
}

func (f *files) CompleteMultipartUpload(ctx context.Context, bucket, key string, id gofakes3.UploadID, input *gofakes3.CompleteMultipartUploadRequest) (gofakes3.VersionID, string, error) {
	name, err := f.name(bucket, key)
	if err != nil {
		return "", "", err
	}
	if err := f.checkParts(id, input); err != nil {
		return "", "", err
	}
	written := path.Join(incoming, rand.Text())
	defer func() { _ = f.root.Remove(written) }()
	if err := f.assemble(written, id, input); err != nil {
		return "", "", err
	}
	etag, err := f.appear(ctx, written, key, name)
	if err != nil {
		return "", "", err // the upload remains, so that the client can abort it or try again
	}
	return "", etag, f.AbortMultipartUpload(ctx, bucket, key, id)
}

// checkParts returns an error unless the client has sent the parts that it lists.
func (f *files) checkParts(id gofakes3.UploadID, input *gofakes3.CompleteMultipartUploadRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	parts, ok := f.uploads[id]
	if !ok {
		return gofakes3.ErrNoSuchUpload
	}
	if len(input.Parts) == 0 {
		return gofakes3.ErrInvalidPart
	}
	last := 0
	for _, part := range input.Parts {
		if part.PartNumber <= last {
			return gofakes3.ErrInvalidPartOrder
		}
		last = part.PartNumber
		if etag, sent := parts[part.PartNumber]; !sent || strings.Trim(etag, `"`) != strings.Trim(part.ETag, `"`) {
			return gofakes3.ErrInvalidPart
		}
	}
	return nil
}

func (f *files) assemble(written string, id gofakes3.UploadID, input *gofakes3.CompleteMultipartUploadRequest) error {
	var parts []io.Reader
	var opened []*os.File
	defer func() {
		for _, file := range opened {
			_ = file.Close() // it was only read
		}
	}()
	for _, part := range input.Parts {
		file, err := f.root.Open(partName(id, part.PartNumber))
		if err != nil {
			return err
		}
		opened = append(opened, file)
		parts = append(parts, file)
	}
	return f.write(written, io.MultiReader(parts...), -1)
}

func (f *files) AbortMultipartUpload(_ context.Context, _, _ string, id gofakes3.UploadID) error {
	f.mu.Lock()
	delete(f.uploads, id)
	f.mu.Unlock()
	err := f.root.RemoveAll(path.Join(incoming, string(id)))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
