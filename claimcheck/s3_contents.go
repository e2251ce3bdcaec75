package claimcheck

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
)

const (
	// deleteBatch is how many objects S3 deletes with one request.
	deleteBatch = 1000
	// concurrentCopies is how many objects are copied at the same time.
	concurrentCopies = 16
)

func (b *bucket) each(ctx context.Context, prefix string, take func(key string, i info) error) error {
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list the objects: %w", classify(ctx, err))
		}
		for _, object := range page.Contents {
			if err := take(aws.ToString(object.Key), info{aws.ToInt64(object.Size), aws.ToTime(object.LastModified)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// move copies the objects, and then deletes those that were copied, as S3 cannot rename
// objects. An object whose deletion fails exists under both keys.
func (b *bucket) move(ctx context.Context, moves []relocation, before time.Time, replace bool) (moved []relocation, err error) {
	for batch := range slices.Chunk(moves, deleteBatch) {
		copied, err := b.copyAll(ctx, batch, before, replace)
		keys := make([]string, len(copied))
		for i, m := range copied {
			keys[i] = m.from
		}
		if len(keys) > 0 {
			// Even after an error or the end of ctx, so that no object exists under both keys.
			deleting, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTimeout)
			err = errors.Join(err, b.remove(deleting, keys))
			cancel()
		}
		moved = append(moved, copied...)
		if err != nil {
			return moved, err
		}
	}
	return moved, nil
}

// deleteTimeout limits the time to delete a batch of objects that were copied.
const deleteTimeout = 30 * time.Second

func (b *bucket) copyAll(ctx context.Context, moves []relocation, before time.Time, replace bool) (copied []relocation, err error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrentCopies)
	var mu sync.Mutex
	for _, m := range moves {
		group.Go(func() error {
			done, err := b.copy(ctx, m, before, replace)
			if done {
				mu.Lock()
				defer mu.Unlock()
				copied = append(copied, m)
			}
			return err
		})
	}
	err = group.Wait()
	return copied, err
}

// copy copies an object unless it is missing or was renewed after the time.
func (b *bucket) copy(ctx context.Context, m relocation, before time.Time, replace bool) (done bool, err error) {
	object, err := b.stat(ctx, m.from)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for %s: %w", m.from, err)
	case !before.IsZero() && object.modified.After(before):
		return false, nil
	}
	if !replace {
		if _, err := b.stat(ctx, m.to); !errors.Is(err, ErrNotFound) {
			return err == nil, err
		}
	}
	_, err = b.client.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket: &b.name, Key: &m.to, CopySource: aws.String(b.name + "/" + m.from),
	})
	if err = classify(ctx, err); errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("copy %s to %s: %w", m.from, m.to, err)
	}
	return true, nil
}

func (b *bucket) remove(ctx context.Context, keys []string) error {
	for batch := range slices.Chunk(keys, deleteBatch) {
		if err := b.removeBatch(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

func (b *bucket) removeBatch(ctx context.Context, keys []string) error {
	var which types.Delete
	which.Quiet = aws.Bool(true)
	for _, key := range keys {
		which.Objects = append(which.Objects, types.ObjectIdentifier{Key: &key})
	}
	answer, err := b.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &b.name, Delete: &which})
	if code := status(err); code == http.StatusNotImplemented || code == http.StatusMethodNotAllowed || codeIn(err, []string{"MissingContentMD5", "InvalidRequest"}) {
		return b.removeEach(ctx, keys) // Google Cloud Storage, for one
	}
	if err != nil {
		return fmt.Errorf("delete %d objects, the first of them %s: %w", len(keys), keys[0], classify(ctx, err))
	}
	if len(answer.Errors) > 0 {
		first := answer.Errors[0]
		return fmt.Errorf("delete objects: %d of %d remain; %s: %w", len(answer.Errors), len(keys), aws.ToString(first.Key), remaining(first))
	}
	return nil
}

// removeEach deletes objects one by one, for servers that do not delete batches.
func (b *bucket) removeEach(ctx context.Context, keys []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrentCopies)
	for _, key := range keys {
		group.Go(func() error {
			if _, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.name, Key: &key}); err != nil {
				if err = classify(ctx, err); !errors.Is(err, ErrNotFound) {
					return fmt.Errorf("delete %s: %w", key, err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}
