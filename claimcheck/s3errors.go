package claimcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// fullCodes are what servers call a disk or a quota that is full.
var fullCodes = []string{"XMinioStorageFull", "QuotaExceeded", "QuotaExceededException", "InsufficientStorage", "EntityTooLargeForQuota"}

// classify decides, in one place, what an error of the S3 client means. Two
// statuses are left for put to act upon: 409 and 412.
func classify(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	kind := ErrUnavailable
	var api smithy.APIError
	var certificate *tls.CertificateVerificationError
	var noKey *types.NoSuchKey
	switch code := status(err); {
	case errors.Is(err, ErrTooLarge), code == http.StatusConflict, code == http.StatusPreconditionFailed:
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%w: %w", context.Canceled, err) // not the store's fault
	case code == http.StatusInsufficientStorage, errors.As(err, &api) && slices.Contains(fullCodes, api.ErrorCode()):
		kind = ErrFull
	case errors.As(err, &noKey):
		kind = ErrNotFound
	case errors.As(err, &certificate), code == http.StatusUnauthorized, code == http.StatusForbidden,
		errors.As(err, &api) && api.ErrorCode() == "NoSuchBucket":
		kind = ErrDenied
	case code == http.StatusNotFound: // HEAD has no body that would say of what
		kind = ErrNotFound
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// status returns the HTTP status of the answer that err is about, 0 where there
// was none.
func status(err error) int {
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}
