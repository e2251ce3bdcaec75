package embedded

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rclone/gofakes3"
)

// incoming is the directory for files that are being written.
const incoming = "incoming"

// files is the storage of gofakes3. An object is the file BUCKET/KEY.
type files struct {
	root   *os.Root
	bucket string

	// mu makes the check of a condition and the write one step. gofakes3 checks
	// If-None-Match too early for concurrent writers.
	mu sync.Mutex
}

func openFiles(dir, bucket string) (*files, error) {
	if err := gofakes3.ValidateBucketName(bucket); err != nil || bucket == incoming {
		return nil, fmt.Errorf("bucket %q: not a valid name of a bucket; use 3 to 63 lower-case letters, digits and '-', and not %q", bucket, incoming)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	err = root.RemoveAll(incoming) // left by a server that was killed
	for _, name := range []string{incoming, bucket} {
		err = errors.Join(err, root.MkdirAll(name, 0o750))
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &files{root: root, bucket: bucket}, nil
}

// name returns the file of an object.
func (f *files) name(bucket, key string) (string, error) {
	if bucket != f.bucket {
		return "", gofakes3.BucketNotFound(bucket)
	}
	if !fs.ValidPath(key) || key == "." {
		return "", gofakes3.ErrorInvalidArgument("key", key, "keys must be relative paths without empty parts, '.' and '..'")
	}
	return path.Join(bucket, key), nil
}

// tag returns the entity tag of an object. It changes when the object changes.
func tag(info fs.FileInfo) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d", info.Size(), info.ModTime().UnixNano()))
	return sum[:16]
}

func quoted(hash []byte) string { return `"` + hex.EncodeToString(hash) + `"` }

func (f *files) stat(key, name string) (fs.FileInfo, error) {
	info, err := f.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
		return nil, gofakes3.KeyNotFound(key)
	}
	return info, err
}

func (f *files) HeadObject(_ context.Context, bucket, key string) (*gofakes3.Object, error) {
	name, err := f.name(bucket, key)
	if err != nil {
		return nil, err
	}
	info, err := f.stat(key, name)
	if err != nil {
		return nil, err
	}
	return &gofakes3.Object{
		Name:     key,
		Metadata: map[string]string{"Last-Modified": info.ModTime().UTC().Format(http.TimeFormat)},
		Size:     info.Size(),
		Hash:     tag(info),
		Contents: io.NopCloser(strings.NewReader("")),
	}, nil
}

func (f *files) GetObject(ctx context.Context, bucket, key string, wanted *gofakes3.ObjectRangeRequest) (*gofakes3.Object, error) {
	object, err := f.HeadObject(ctx, bucket, key)
	if err != nil {
		return nil, err
	}
	file, err := f.root.Open(path.Join(bucket, key))
	if err != nil {
		return nil, err
	}
	part, err := wanted.Range(object.Size)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	object.Contents = file
	if part != nil {
		object.Range = part
		object.Contents = section{io.NewSectionReader(file, part.Start, part.Length), file}
	}
	return object, nil
}

type section struct {
	io.Reader
	io.Closer
}

func (f *files) PutObject(ctx context.Context, bucket, key string, _ map[string]string, input io.Reader, size int64) (gofakes3.PutObjectResult, error) {
	name, err := f.name(bucket, key)
	if err != nil {
		return gofakes3.PutObjectResult{}, err
	}
	written := path.Join(incoming, rand.Text())
	defer func() { _ = f.root.Remove(written) }() // fails if the file was renamed
	if err := f.write(written, input, size); err != nil {
		return gofakes3.PutObjectResult{}, err
	}
	etag, err := f.appear(ctx, written, key, name)
	return gofakes3.PutObjectResult{ETag: etag}, err
}

// write writes a file. The content must have size bytes.
func (f *files) write(name string, content io.Reader, size int64) error {
	file, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	n, err := io.Copy(file, content)
	if err == nil && n != size {
		err = gofakes3.ErrIncompleteBody
	}
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil { // not joined: gofakes3 does not unwrap errors
		err = closed
	}
	return err
}

// appear renames a file to the name of the object if the conditions of the request
// hold.
func (f *files) appear(ctx context.Context, written, key, name string) (etag string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	present, err := f.stat(key, name)
	exists := err == nil
	if exists {
		etag = hex.EncodeToString(tag(present))
	} else if !gofakes3.HasErrorCode(err, gofakes3.ErrNoSuchKey) {
		return "", err
	}
	if err := gofakes3.CheckWriteConditions(ctx, exists, etag); err != nil {
		return "", err
	}
	if err := f.root.MkdirAll(path.Dir(name), 0o750); err != nil {
		return "", err
	}
	if err := f.root.Rename(written, name); err != nil {
		return "", err
	}
	info, err := f.root.Stat(name)
	if err != nil {
		return "", err
	}
	return quoted(tag(info)), nil
}

func (f *files) CopyObject(ctx context.Context, fromBucket, fromKey, bucket, key string, meta map[string]string) (gofakes3.CopyObjectResult, error) {
	object, err := f.GetObject(ctx, fromBucket, fromKey, nil)
	if err != nil {
		return gofakes3.CopyObjectResult{}, err
	}
	put, err := f.PutObject(ctx, bucket, key, meta, object.Contents, object.Size)
	if closed := object.Contents.Close(); err == nil {
		err = closed
	}
	return gofakes3.CopyObjectResult{ETag: put.ETag, LastModified: gofakes3.NewContentTime(time.Now())}, err
}

// DeleteObject deletes an object. As in S3, it may be missing.
func (f *files) DeleteObject(_ context.Context, bucket, key string) (gofakes3.ObjectDeleteResult, error) {
	name, err := f.name(bucket, key)
	if err != nil {
		return gofakes3.ObjectDeleteResult{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return gofakes3.ObjectDeleteResult{}, err
	}
	return gofakes3.ObjectDeleteResult{}, nil
}

func (f *files) DeleteMulti(ctx context.Context, bucket string, keys ...string) (result gofakes3.MultiDeleteResult, err error) {
	for _, key := range keys {
		if _, err := f.DeleteObject(ctx, bucket, key); err != nil {
			result.Error = append(result.Error, gofakes3.ErrorResultFromError(err))
			continue
		}
		result.Deleted = append(result.Deleted, gofakes3.ObjectID{Key: key})
	}
	return result, nil
}

func (f *files) ListBuckets(context.Context) ([]gofakes3.BucketInfo, error) {
	info, err := f.root.Stat(f.bucket)
	if err != nil {
		return nil, err
	}
	return []gofakes3.BucketInfo{{Name: f.bucket, CreationDate: gofakes3.NewContentTime(info.ModTime())}}, nil
}

func (f *files) BucketExists(_ context.Context, bucket string) (bool, error) {
	return bucket == f.bucket, nil
}

func (f *files) CreateBucket(_ context.Context, bucket string) error {
	if bucket == f.bucket {
		return gofakes3.ResourceError(gofakes3.ErrBucketAlreadyExists, bucket)
	}
	return gofakes3.ErrNotImplemented
}

func (f *files) DeleteBucket(context.Context, string) error { return gofakes3.ErrNotImplemented }

func (f *files) ListBucket(_ context.Context, bucket string, prefix *gofakes3.Prefix, page gofakes3.ListBucketPage) (*gofakes3.ObjectList, error) {
	if bucket != f.bucket {
		return nil, gofakes3.BucketNotFound(bucket)
	}
	if !page.IsEmpty() {
		return nil, gofakes3.ErrInternalPageNotImplemented // gofakes3 then asks for all objects
	}
	all, err := f.contents()
	if err != nil {
		return nil, err
	}
	list := gofakes3.NewObjectList()
	for _, object := range all {
		var match gofakes3.PrefixMatch
		switch {
		case prefix != nil && !prefix.Match(object.Key, &match):
		case match.CommonPrefix:
			list.AddPrefix(match.MatchedPart)
		default:
			list.Add(object)
		}
	}
	return list, nil
}

// contents returns all objects, sorted by key.
func (f *files) contents() (all []*gofakes3.Content, err error) {
	err = fs.WalkDir(f.root.FS(), f.bucket, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		all = append(all, &gofakes3.Content{
			Key:          strings.TrimPrefix(name, f.bucket+"/"),
			LastModified: gofakes3.NewContentTime(info.ModTime()),
			ETag:         quoted(tag(info)),
			Size:         info.Size(),
		})
		return nil
	})
	slices.SortFunc(all, func(a, b *gofakes3.Content) int { return cmp.Compare(a.Key, b.Key) })
	return all, err
}
