package claimcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/morphogenetic/oona"
)

// Error codes of S3 servers, for errors that have the same HTTP status.
var (
	fullCodes = []string{"XMinioStorageFull", "QuotaExceeded", "QuotaExceededException", "InsufficientStorage", "EntityTooLargeForQuota"}
	// passingCodes come with a status of 400 or 404, although another attempt may
	// succeed: the body was changed or cut off on its way, or an upload in parts
	// has expired.
	passingCodes    = []string{"RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody", "OperationAborted", "NoSuchUpload", "InvalidPart", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"}
	regionCodes     = []string{"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException", "InvalidRegion"}
	credentialCodes = []string{"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidClientTokenId", "UnrecognizedClientException", "TokenRefreshRequired", "InvalidSecurity", "XAdminUserNotFound"}
	bucketCodes     = []string{"NoSuchBucket", "InvalidBucketName"}
)

// classify wraps an error of the S3 client in the corresponding error of the store.
// It returns the statuses 409 and 412 unchanged, for put. A missing answer and a
// server error are outages. All other answers are refusals unless another attempt is
// known to help.
func classify(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var noKey *types.NoSuchKey
	switch code := status(err); {
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrRefused), errors.Is(err, ErrUnavailable), code == http.StatusConflict, code == http.StatusPreconditionFailed:
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%w: %w", context.Canceled, err) // not the store's fault
	case code == http.StatusInsufficientStorage, codeIn(err, fullCodes):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.As(err, &noKey), codeIn(err, []string{"NoSuchKey"}): // the client knows it as a type of GetObject only
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case refuses(err):
		return refusal(err)
	case codeIn(err, []string{"NotFound"}): // of HEAD, whose answer has no body with a code
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// refuses reports whether another attempt would fail with the same error.
func refuses(err error) bool {
	var certificate *tls.CertificateVerificationError
	switch code := status(err); {
	case errors.As(err, &certificate), errors.Is(err, http.ErrSchemeMismatch):
		return true
	case codeIn(err, passingCodes):
		return false
	case code == http.StatusNotFound: // the client makes NotFound of an answer without a body
		return !codeIn(err, []string{"NoSuchKey", "NotFound"})
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests:
		return false
	case code >= 300 && code < 500, code == http.StatusNotImplemented:
		return true
	}
	return false
}

func noBucket() *oona.FieldError {
	return &oona.FieldError{Field: "--tensor-bucket", Reason: "does not exist in this store; create it, or give another"}
}

// refusal wraps err in ErrRefused and in a FieldError for the setting that is the
// most likely cause.
func refusal(err error) error {
	return fmt.Errorf("%w: %w: %w", ErrRefused, blamed(err), err)
}

func blamed(err error) *oona.FieldError {
	var certificate *tls.CertificateVerificationError
	code := status(err)
	switch {
	case errors.As(err, &certificate):
		return &oona.FieldError{Field: "--s3-ca-file", Reason: "does not contain the authority of the endpoint's certificate, or the certificate is for another host"}
	case errors.Is(err, http.ErrSchemeMismatch):
		return &oona.FieldError{Field: "--s3-endpoint", Reason: "begins with https, but the server speaks http"}
	case codeIn(err, bucketCodes):
		return noBucket()
	case codeIn(err, []string{"RequestTimeTooSkewed"}):
		return &oona.FieldError{Field: "clock", Reason: "of this machine differs from the store's clock by more than the store allows; correct it"}
	case codeIn(err, credentialCodes), code == http.StatusUnauthorized:
		return &oona.FieldError{Field: "--s3-access-key-id", Reason: "or its secret (--s3-secret-access-key-file, or the variables AWS_...) is not valid, or has expired"}
	case region(err) != "":
		return &oona.FieldError{Field: "--s3-region", Reason: fmt.Sprintf("is not the bucket's region, which is %.64q", region(err))}
	case codeIn(err, regionCodes):
		return &oona.FieldError{Field: "--s3-region", Reason: "is not the bucket's region, or --s3-endpoint belongs to another region"}
	case code == http.StatusForbidden:
		return &oona.FieldError{Field: "--s3-access-key-id", Reason: "does not have the permission for this request; docs/operations.md lists the permissions that ingest and readers need"}
	}
	return &oona.FieldError{Field: "--s3-endpoint", Reason: fmt.Sprintf("answers with status %d, which S3 does not give to this request; is it an S3 server?", code)}
}

// region returns the bucket's region if the answer says that the request was signed
// for another one, and "" otherwise.
func region(err error) string {
	var answer *smithyhttp.ResponseError
	if !errors.As(err, &answer) || answer.Response == nil {
		return ""
	}
	redirected := answer.HTTPStatusCode() >= 300 && answer.HTTPStatusCode() < 400
	if !redirected && answer.HTTPStatusCode() != http.StatusBadRequest {
		return ""
	}
	return answer.Response.Header.Get("X-Amz-Bucket-Region")
}

func codeIn(err error, codes []string) bool {
	var api smithy.APIError
	return errors.As(err, &api) && slices.Contains(codes, api.ErrorCode())
}

// status returns the HTTP status of the answer, or 0 if there was no answer.
func status(err error) int {
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}

// remaining returns the error for an object of a batch that was not deleted. The status of the
// answer does not show it.
func remaining(why types.Error) error {
	text := fmt.Errorf("%s: %s", aws.ToString(why.Code), aws.ToString(why.Message))
	if aws.ToString(why.Code) == "AccessDenied" {
		return fmt.Errorf("%w: %w: %w", ErrRefused, &oona.FieldError{Field: "--s3-access-key-id", Reason: "may not delete objects; docs/security.md lists the permissions that oona tensors gc needs"}, text)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, text)
}
