package claimcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/secret"
)

const (
	// credentialsKept is how long credentials without an expiry are used before they
	// are looked up again, so that they can be changed while the process runs.
	credentialsKept = time.Minute
	// mostRenewal limits how long before their expiry credentials are renewed.
	mostRenewal = 5 * time.Minute
	// chainTimeout limits a look-up of credentials.
	chainTimeout = 10 * time.Second
	// metadataTimeout limits the look-up in the metadata of EC2, which is last in the
	// chain. Outside EC2, nothing may answer there.
	metadataTimeout = time.Second
)

const accessKeyFlag = "--s3-access-key-id"

// fileCredentials are the access key of the flags, with the secret in a file.
type fileCredentials struct {
	id     string
	secret *secret.Value[string]
}

func (f fileCredentials) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{
		AccessKeyID: f.id, SecretAccessKey: f.secret.Get(), Source: "--s3-secret-access-key-file",
		CanExpire: true, Expires: time.Now().Add(secret.Interval),
	}, nil
}

// freshSigner signs each request with a key that is derived from the secret. The SDK's
// signer keeps this key until the next day or until the access key ID changes, so it would
// not use another secret of the same ID.
type freshSigner struct{}

// SignHTTP implements s3.HTTPSignerV4.
func (freshSigner) SignHTTP(ctx context.Context, credentials aws.Credentials, r *http.Request, payloadHash, service, region string, at time.Time, options ...func(*v4.SignerOptions)) error {
	// S3 signs paths as they are.
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	return signer.SignHTTP(ctx, credentials, r, payloadHash, service, region, at, options...)
}

// chain looks for credentials where the AWS SDK does: in the environment, in its shared
// files, at STS with a web identity, at the endpoint of a container, and in the metadata
// of EC2. Each look-up begins with the first of them, because the SDK reads the
// environment and the files only once.
type chain struct {
	region string
	files  *secret.Files

	mu    sync.Mutex
	until time.Time // the expiry of the last credentials; zero if they have none
	found bool
}

// source returns the first source of the chain that is configured. It sends no request.
func (c *chain) source(ctx context.Context) (aws.CredentialsProvider, error) {
	found, err := config.LoadDefaultConfig(ctx,
		config.WithDefaultRegion(c.region), // of STS; AWS_REGION wins
		config.WithDefaultsMode(aws.DefaultsModeStandard),
		config.WithCredentialsCacheOptions(func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = 0 }), // Retrieve has its own
		config.WithLogger(logging.Nop{}))
	if err != nil {
		return nil, c.wrong(ErrRefused, "is empty, and the settings of the AWS SDK (variables AWS_..., shared files) cannot be used", err)
	}
	return found.Credentials, nil
}

// Retrieve returns credentials whose expiry is set to when they should be renewed, which is
// before they expire.
func (c *chain) Retrieve(ctx context.Context) (aws.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, chainTimeout)
	defer cancel()
	source, err := c.source(ctx)
	if err != nil {
		return aws.Credentials{}, err
	}
	onlyMetadata := aws.IsCredentialsProvider(source, (*ec2rolecreds.Provider)(nil))
	if onlyMetadata {
		ctx, cancel = context.WithTimeout(ctx, metadataTimeout)
		defer cancel()
	}
	credentials, err := source.Retrieve(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil && onlyMetadata && !c.found:
		return credentials, c.wrong(ErrRefused, "is empty, and there are no other credentials: no variables AWS_..., shared files, web identity or container endpoint, and no metadata of EC2. Give it and --s3-secret-access-key-file, or one of these", err)
	case err != nil && (onlyMetadata || !refusesCredentials(err)):
		return credentials, c.wrong(ErrUnavailable, "is empty, and where the AWS SDK gets credentials does not answer", err)
	case err != nil:
		return credentials, c.wrong(ErrRefused, "is empty, and the AWS SDK gets no credentials", err)
	}
	c.found, c.until = true, time.Time{}
	if !credentials.CanExpire {
		credentials.CanExpire, credentials.Expires = true, time.Now().Add(credentialsKept)
		return credentials, nil
	}
	c.until = credentials.Expires
	credentials.Expires = c.until.Add(-min(mostRenewal, max(0, time.Until(c.until)/5)))
	return credentials, nil
}

// HandleFailToRefresh returns the last credentials while they have not expired. The SDK
// calls it if Retrieve fails.
func (c *chain) HandleFailToRefresh(_ context.Context, last aws.Credentials, err error) (aws.Credentials, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if !last.HasKeys() || !c.until.IsZero() && !now.Before(c.until) {
		return aws.Credentials{}, err
	}
	c.files.Failed(accessKeyFlag, "credentials of the object store cannot be renewed; the last ones stay in use until they expire", err)
	last.Expires = now.Add(credentialsKept)
	if !c.until.IsZero() && c.until.Before(last.Expires) {
		last.Expires = c.until
	}
	return last, nil
}

// wrong returns an error of the chain. It does not wrap the cause: errors of other
// servers would be taken for answers of the store.
func (c *chain) wrong(kind error, reason string, cause error) error {
	return fmt.Errorf("%w: %w: %s", kind, &oona.FieldError{Field: accessKeyFlag, Reason: reason}, cause.Error())
}

// refusesCredentials reports whether another attempt to get credentials would fail with
// the same error.
func refusesCredentials(err error) bool {
	if codeIn(err, []string{"IDPCommunicationError"}) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if status(err) != 0 || codeIn(err, passingCodes) {
		return refuses(err)
	}
	// The endpoint of a container has errors of its own.
	if answer, ok := errors.AsType[interface {
		error
		HTTPStatusCode() int
	}](err); ok {
		return answer.HTTPStatusCode() < 500 && answer.HTTPStatusCode() != http.StatusTooManyRequests
	}
	_, sent := errors.AsType[net.Error](err)
	_, cancelled := errors.AsType[*smithy.CanceledError](err)
	return !sent && !cancelled
}
