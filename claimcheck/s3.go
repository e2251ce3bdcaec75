package claimcheck

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/morphogenetic/oona"
)

const (
	// partSize is that of all parts but the last; what is not larger is sent in
	// one request. S3 takes 10,000 parts, so that a tensor may have 78 GiB.
	partSize  = 8 << 20
	mostParts = 10_000
	// askFirst is the size above which the store is asked whether it has the
	// content. A server that has it refuses the body without reading it, and
	// the connection may break before the answer is read.
	askFirst = 128 << 10
	// abortTimeout bounds the attempt to delete the parts of a failed upload.
	abortTimeout = 5 * time.Second
	// conflicts is how often a write is tried that meets another of the same key.
	conflicts = 5
	// mostVerified is how many keys are remembered whose objects were read.
	mostVerified = 1 << 16
)

// bucket is objects in S3, or in what speaks its protocol.
type bucket struct {
	client *s3.Client
	name   string

	mu       sync.Mutex
	verified map[string]struct{} // keys whose objects were written or read here
}

// put sends the content under the condition that nothing is there: of many
// that send the same, one writes.
func (b *bucket) put(ctx context.Context, key string, content *Spooled) (fresh bool, err error) {
	defer func() {
		if err == nil {
			b.trust(key)
		}
	}()
	unless := aws.String("*")
	if content.size > askFirst {
		if there, damaged, err := b.has(ctx, key, content); err != nil || there {
			return false, err
		} else if damaged {
			unless = nil
		}
	}
	for range conflicts {
		err = classify(ctx, b.write(ctx, key, content, unless))
		switch status(err) {
		case 412: // somebody was first
			there, damaged, err := b.has(ctx, key, content)
			if err != nil || there {
				return false, err
			}
			if damaged {
				unless = nil
			}
		case 409: // somebody is writing it: ConditionalRequestConflict
		default:
			if errors.Is(err, ErrUnavailable) {
				// The answer may have been 412, or 200, and was lost.
				if there, _, lost := b.has(ctx, key, content); lost == nil && there {
					return false, nil
				}
			}
			return err == nil, err
		}
	}
	return false, fmt.Errorf("%w: after %d attempts: %w", ErrUnavailable, conflicts, err)
}

// has asks for the content. What is something else was damaged, by whatever. An
// object of at most a part is read, once in the process; of others the size tells.
func (b *bucket) has(ctx context.Context, key string, content *Spooled) (there, damaged bool, err error) {
	if content.size <= partSize && !b.trusts(key) {
		there, err = holds(ctx, b, key, content)
	} else {
		var size int64
		size, err = b.size(ctx, key)
		there = err == nil && size == content.size
	}
	if errors.Is(err, ErrNotFound) {
		return false, false, nil
	}
	return there, err == nil && !there, err
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
		clear(b.verified) // to read some again costs little
	}
	b.verified[key] = struct{}{}
}

func (b *bucket) write(ctx context.Context, key string, content *Spooled, unless *string) error {
	if content.size > partSize {
		return b.writeParts(ctx, key, content, unless)
	}
	_, err := b.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &b.name, Key: &key, IfNoneMatch: unless,
		Body: content.section(0, content.size), ContentLength: &content.size,
		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(content.digest[:])),
	})
	return err
}

// writeParts deletes the parts of an upload that fails: nobody else would, and
// they cost as much as an object.
func (b *bucket) writeParts(ctx context.Context, key string, content *Spooled, unless *string) (err error) {
	if parts := (content.size + partSize - 1) / partSize; parts > mostParts {
		return fmt.Errorf("%w: %w", &oona.FieldError{Field: "size", Reason: fmt.Sprintf("is %d parts of %d bytes, and S3 takes %d", parts, partSize, mostParts)}, ErrTooLarge)
	}
	upload, err := b.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &b.name, Key: &key, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
	})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.abort(ctx, key, upload.UploadId))
		}
	}()
	var parts []types.CompletedPart
	for offset := int64(0); offset < content.size; offset += partSize {
		number, size := int32(len(parts)+1), min(partSize, content.size-offset)
		part, err := b.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &b.name, Key: &key, UploadId: upload.UploadId, PartNumber: &number,
			Body: content.section(offset, size), ContentLength: &size, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
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

func (b *bucket) abort(ctx context.Context, key string, upload *string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_, err := b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.name, Key: &key, UploadId: upload})
	if err != nil && status(err) != 404 { // of an upload that the failed request did end
		return fmt.Errorf("delete the parts of upload %s: %w", aws.ToString(upload), err)
	}
	return nil
}

func (b *bucket) open(ctx context.Context, key string) (io.ReadCloser, int64, error) {
	object, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: &key})
	if err != nil {
		return nil, 0, classify(ctx, err)
	}
	return &objectBody{ctx: ctx, ReadCloser: object.Body}, aws.ToInt64(object.ContentLength), nil
}

func (b *bucket) size(ctx context.Context, key string) (int64, error) {
	object, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &key})
	if err != nil {
		return 0, classify(ctx, err)
	}
	return aws.ToInt64(object.ContentLength), nil
}

func (b *bucket) probe(ctx context.Context) error {
	_, err := b.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &b.name})
	if status(err) == 404 {
		return fmt.Errorf("%w: there is no such bucket: %w", ErrDenied, err)
	}
	return classify(ctx, err)
}

// objectBody tells a store that breaks off from content that is wrong.
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
