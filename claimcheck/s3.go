package claimcheck

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/morphogenetic/oona"
)

const (
	// partSize is the size of all parts but the last. Content that is not larger
	// is sent in one request. S3 allows 10,000 parts, which is 78 GiB.
	partSize  = 8 << 20
	mostParts = 10_000
	// askFirst is the size above which the store is first asked whether it has the
	// content. Otherwise a server that has it would refuse the conditional write without
	// reading the body, and the connection might break before the answer is read.
	askFirst = 128 << 10
	// abortTimeout is the longest time to delete the parts of a failed upload.
	abortTimeout = 5 * time.Second
	// conflicts is the number of attempts to write a key that others write too.
	conflicts = 5
	// mostVerified limits the number of keys in bucket.verified.
	mostVerified = 1 << 16
)

// bucket implements objects with a bucket of S3 or of a compatible server.
type bucket struct {
	client *s3.Client
	name   string
	plain  atomic.Bool // the server does not support conditional writes

	mu       sync.Mutex
	verified map[string]struct{} // keys whose objects were written or read here
}

// put writes the content on condition that the key does not exist, so that one of
// several concurrent writers succeeds. If the server does not support the
// condition, all of them write the same bytes, as the key is the content's hash.
func (b *bucket) put(ctx context.Context, key string, content *Spooled) (fresh bool, err error) {
	defer func() {
		if err == nil {
			b.trust(key)
		}
	}()
	replace, old := false, false
	if content.size > askFirst || b.plain.Load() {
		there, renew, err := b.has(ctx, key, content)
		if err != nil || there && !renew {
			return false, err
		}
		replace, old = renew, there
	}
	for range conflicts {
		err = b.write(ctx, key, content, !replace)
		switch status(err) {
		case http.StatusPreconditionFailed: // another writer was first
			there, renew, err := b.has(ctx, key, content)
			if err != nil || there && !renew {
				return false, err
			}
			replace, old = replace || renew, old || there
		case http.StatusConflict: // another request is writing it: ConditionalRequestConflict
		default:
			if errors.Is(err, ErrUnavailable) {
				// The store may have answered 412 or 200, and the answer was lost.
				if there, renew, lost := b.has(ctx, key, content); lost == nil && there && !renew {
					return false, nil
				}
			}
			return err == nil && !old, err
		}
	}
	return false, fmt.Errorf("%w: after %d attempts: %w", ErrUnavailable, conflicts, err)
}

// has reports whether the object under the key is the content, and whether it must be
// written again, because it is different or old. If the object is not larger than one part,
// has reads it, but only once per process. Of a larger one, it compares the size.
func (b *bucket) has(ctx context.Context, key string, content *Spooled) (there, replace bool, err error) {
	var old bool
	if content.size <= partSize && !b.trusts(key) {
		there, old, err = holds(ctx, b, key, content)
	} else {
		var object info
		object, err = b.stat(ctx, key)
		there, old = err == nil && object.size == content.size, object.old()
	}
	if errors.Is(err, ErrNotFound) {
		return false, false, nil
	}
	return there, err == nil && (!there || old), err
}

func (b *bucket) trusts(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.verified[key]
	return ok
}

func (b *bucket) trust(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.verified) >= mostVerified {
		clear(b.verified) // reading some objects again costs little
	}
	b.verified[key] = struct{}{}
}

// write writes the content. If create is set, the write is on condition that the
// key does not exist. If the server refuses the condition and then accepts the
// write without it, later writes omit it.
func (b *bucket) write(ctx context.Context, key string, content *Spooled, create bool) error {
	if !create || b.plain.Load() {
		return b.send(ctx, key, content, nil)
	}
	err := b.send(ctx, key, content, aws.String("*"))
	if !errors.Is(err, ErrRefused) || !slices.Contains([]int{http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented}, status(err)) {
		return err
	}
	if again := b.send(ctx, key, content, nil); again != nil {
		return again
	}
	b.plain.Store(true)
	return nil
}

func (b *bucket) send(ctx context.Context, key string, content *Spooled, unless *string) (err error) {
	if content.size > partSize {
		err = b.writeParts(ctx, key, content, unless)
	} else {
		_, err = b.client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &b.name, Key: &key, IfNoneMatch: unless,
			Body: content.section(0, content.size), ContentLength: &content.size,
			ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(content.digest[:])),
		})
	}
	if status(err) == http.StatusNotFound && !codeIn(err, passingCodes) {
		return refusal(err) // a write cannot fail because the object does not exist
	}
	return classify(ctx, err)
}

// writeParts sends the content in parts. If that fails, it deletes the parts, as
// the store would keep and charge for them.
func (b *bucket) writeParts(ctx context.Context, key string, content *Spooled, unless *string) (err error) {
	if parts := (content.size + partSize - 1) / partSize; parts > mostParts {
		return fmt.Errorf("%w: %w", &oona.FieldError{Field: "size", Reason: fmt.Sprintf("is %d parts of %d bytes; S3 allows %d parts", parts, partSize, mostParts)}, ErrTooLarge)
	}
	upload, err := b.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &b.name, Key: &key, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
	})
	if err != nil {
		return err
	}
	if aws.ToString(upload.UploadId) == "" {
		return fmt.Errorf("%w: %w", ErrRefused, &oona.FieldError{Field: "--s3-endpoint", Reason: "answers to CreateMultipartUpload without an upload ID; is it an S3 server?"})
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.abort(ctx, key, upload.UploadId))
		}
	}()
	var parts []types.CompletedPart
	for offset := int64(0); offset < content.size; offset += partSize {
		number, size := int32(len(parts)+1), min(partSize, content.size-offset)
		checksum, err := crc32Of(content.section(offset, size))
		if err != nil {
			return err
		}
		part, err := b.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &b.name, Key: &key, UploadId: upload.UploadId, PartNumber: &number,
			Body: content.section(offset, size), ContentLength: &size, ChecksumCRC32: &checksum,
		})
		if err != nil {
			return err
		}
		parts = append(parts, types.CompletedPart{ETag: part.ETag, PartNumber: &number, ChecksumCRC32: part.ChecksumCRC32})
	}
	_, err = b.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &b.name, Key: &key, UploadId: upload.UploadId, IfNoneMatch: unless,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	return err
}

// crc32Of returns the checksum of a part in S3's form. Without it, the client would
// send a checksum after the part, in the encoding aws-chunked, which not all servers
// support.
func crc32Of(part io.Reader) (string, error) {
	sum := crc32.NewIEEE()
	if _, err := io.Copy(sum, part); err != nil {
		return "", notSpooled(err)
	}
	return base64.StdEncoding.EncodeToString(sum.Sum(nil)), nil
}

func (b *bucket) abort(ctx context.Context, key string, upload *string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_, err := b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.name, Key: &key, UploadId: upload})
	if err != nil && status(err) != http.StatusNotFound { // 404: the failed request has ended the upload
		return fmt.Errorf("delete the parts of upload %s: %w", aws.ToString(upload), err)
	}
	return nil
}

func (b *bucket) open(ctx context.Context, key string) (io.ReadCloser, info, error) {
	object, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: &key})
	if err != nil {
		return nil, info{}, classify(ctx, err)
	}
	return &objectBody{ctx: ctx, ReadCloser: object.Body}, info{aws.ToInt64(object.ContentLength), aws.ToTime(object.LastModified)}, nil
}

func (b *bucket) stat(ctx context.Context, key string) (info, error) {
	object, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &key})
	if err == nil {
		return info{aws.ToInt64(object.ContentLength), aws.ToTime(object.LastModified)}, nil
	}
	if err = classify(ctx, err); errors.Is(err, ErrNotFound) {
		// The answer to HEAD has no body that says whether the object or the bucket
		// is missing.
		if _, missing := b.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &b.name}); status(missing) == http.StatusNotFound {
			return info{}, fmt.Errorf("%w: %w: %w", ErrRefused, noBucket(), missing)
		}
	}
	return info{}, err
}

// renew copies the object to itself. Some servers refuse that, or do not change the time. Then
// renew reads the object and writes it again.
func (b *bucket) renew(ctx context.Context, key string, limit int64) error {
	_, err := b.client.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket: &b.name, Key: &key, CopySource: aws.String(b.name + "/" + key), MetadataDirective: types.MetadataDirectiveReplace,
	})
	if err == nil {
		object, err := b.stat(ctx, key)
		if err != nil || !object.old() {
			return err
		}
	} else if err = classify(ctx, err); !errors.Is(err, ErrRefused) {
		return err
	}
	return rewrite(ctx, b, key, limit, func(content *Spooled) error { return b.write(ctx, key, content, false) })
}

// probe makes the requests of a check-in and a check-out. It begins with those whose
// answers have a body, as these say more about an error.
func (b *bucket) probe(ctx context.Context, key string, content *Spooled) error {
	err := b.write(ctx, key, content, true)
	if status(err) == http.StatusPreconditionFailed { // an earlier probe left it
		err = b.write(ctx, key, content, false)
	}
	if err != nil && status(err) != http.StatusConflict { // 409: another process probes, too
		return fmt.Errorf("write %s: %w", key, err)
	}
	there, _, err := holds(ctx, b, key, content)
	switch {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("%w: %s does not exist after it was written", ErrUnavailable, key)
	case err != nil:
		return fmt.Errorf("read %s: %w", key, err)
	case !there:
		return fmt.Errorf("%w: %w", ErrRefused, &oona.FieldError{Field: "--s3-endpoint", Reason: fmt.Sprintf("returns other bytes than were written to %s; is it an S3 server?", key)})
	}
	absent := Key([sha256.Size]byte{}) // no content has this hash
	if _, err = b.stat(ctx, absent); status(err) == http.StatusForbidden {
		return fmt.Errorf("%w: %w: %w", ErrRefused, &oona.FieldError{Field: "--s3-access-key-id", Reason: "gets 403 for objects that do not exist; allow s3:ListBucket on the bucket, and s3:GetObject on " + Prefix + "*"}, err)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("look for an object that does not exist: %w", err)
	}
	return nil
}

// objectBody classifies the errors of Read, so that a broken connection differs from
// wrong content.
type objectBody struct {
	ctx context.Context
	io.ReadCloser
}

func (o *objectBody) Read(p []byte) (int, error) {
	n, err := o.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = classify(o.ctx, err)
	}
	return n, err
}
