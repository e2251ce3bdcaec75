package claimcheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/morphogenetic/oona"
)

// The kinds of store of a Config.
const (
	KindNone      = "none"
	KindDirectory = "directory"
	KindS3        = "s3"
)

// Config configures a tensor store. Its fields are flags of a command.
type Config struct {
	Kind           string `name:"tensor-store" default:"none" enum:"none,directory,s3" help:"Where large tensors are stored: none, directory or s3. Every process that reads or writes tensors needs the same value."`
	Bucket         string `name:"tensor-bucket" placeholder:"NAME" help:"Bucket of the tensors. It must exist."`
	MaxTensorBytes int64  `help:"Maximum size of a tensor in the store, in bytes."`
	Directory      string `name:"tensor-directory" placeholder:"DIR" help:"Directory of the tensor store, if --tensor-store is directory."`
	S3             S3     `embed:"" prefix:"s3-"`
}

// S3 says how to reach S3 or a compatible server. (The variables are named here,
// as kong would write S_3.)
type S3 struct {
	Endpoint    string `env:"OONA_S3_ENDPOINT" placeholder:"URL" help:"Endpoint, for example https://minio:9000. Default: AWS in the given region."`
	Region      string `env:"OONA_S3_REGION" placeholder:"REGION" help:"Region of the bucket."`
	PathStyle   bool   `env:"OONA_S3_PATH_STYLE" help:"Put the bucket in the path of URLs instead of the host name."`
	AccessKeyID string `env:"OONA_S3_ACCESS_KEY_ID" name:"access-key-id" placeholder:"ID" help:"Access key ID. Default: $AWS_ACCESS_KEY_ID with $AWS_SECRET_ACCESS_KEY and, if set, $AWS_SESSION_TOKEN."`
	SecretFile  string `env:"OONA_S3_SECRET_ACCESS_KEY_FILE" name:"secret-access-key-file" placeholder:"FILE" help:"File that contains the secret access key. It is read again every five minutes."`
	CAFile      string `env:"OONA_S3_CA_FILE" name:"ca-file" placeholder:"FILE" help:"PEM file with the certificate authorities of the endpoint. Default: the system's."`
}

// DefaultConfig returns the defaults of the flags: no store.
func DefaultConfig() Config {
	return Config{Kind: KindNone, Bucket: "kasmina-tensors", MaxTensorBytes: 256 << 20, S3: S3{Region: "us-east-1"}}
}

// Validate returns an *oona.FieldError for the first flag that is wrong.
func (c Config) Validate() error {
	wrong := func(flag, reason string) error { return &oona.FieldError{Field: "--" + flag, Reason: reason} }
	endpoint, err := url.Parse(c.S3.Endpoint)
	switch {
	case c.MaxTensorBytes <= 0:
		return wrong("max-tensor-bytes", fmt.Sprintf("is %d; give a value above 0", c.MaxTensorBytes))
	case c.Kind == KindNone:
		return nil
	case c.Bucket == "":
		return wrong("tensor-bucket", "is empty; give the name that claims shall have")
	case c.Kind == KindDirectory && c.Directory == "":
		return wrong("tensor-directory", "is empty, and --tensor-store is directory; give the path of the directory")
	case c.Kind != KindS3:
		return nil
	case err != nil:
		return wrong("s3-endpoint", err.Error())
	case c.S3.Endpoint != "" && (endpoint.Scheme != "http" && endpoint.Scheme != "https" || endpoint.Host == ""):
		return wrong("s3-endpoint", fmt.Sprintf("is %q; give a URL such as https://minio:9000", c.S3.Endpoint))
	case c.S3.Region == "":
		return wrong("s3-region", "is empty; give the region of the bucket, or us-east-1 if the server has no regions")
	case (c.S3.AccessKeyID == "") != (c.S3.SecretFile == ""):
		return wrong("s3-access-key-id", "and --s3-secret-access-key-file go together; give both or neither")
	}
	return nil
}

// Open returns the store that c describes, or nil if c.Kind is KindNone. It sends
// no request to the store; [Store.Probe] does.
func Open(c Config) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	switch c.Kind {
	case KindDirectory:
		return OpenDirectory(c.Directory, c.Bucket, c.MaxTensorBytes)
	case KindS3:
		return OpenS3(c.S3, c.Bucket, c.MaxTensorBytes)
	}
	return nil, nil
}

// OpenS3 returns a store in an S3 bucket. limit is the greatest size of a tensor
// in bytes.
func OpenS3(c S3, name string, limit int64) (*Store, error) {
	client, err := c.httpClient()
	if err != nil {
		return nil, err
	}
	options := s3.Options{
		Region:       c.Region,
		UsePathStyle: c.PathStyle,
		HTTPClient:   client,
		Credentials:  aws.NewCredentialsCache(aws.CredentialsProviderFunc(c.credentials)),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.MaxBackoff = attempts, longestPause
		}),
		// The zero value would send no checksums.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		// CheckOut verifies the SHA-256 of the claim.
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	}
	if c.Endpoint != "" {
		options.BaseEndpoint = &c.Endpoint
	}
	return &Store{bucket: name, limit: limit, objects: &bucket{client: s3.New(options), name: name, verified: make(map[string]struct{})}}, nil
}

// Limits of the retries of a request, within the time that a client waits for a
// tensor.
const (
	attempts     = 3
	longestPause = time.Second
)

func (c S3) httpClient() (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 32
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("--s3-ca-file: %w", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &oona.FieldError{Field: "--s3-ca-file", Reason: c.CAFile + " holds no certificate in PEM; give a PEM file with the authorities of the endpoint"}
		}
	}
	// Redirects are not followed, as requests are signed for the host that they
	// are sent to. A redirect is reported as a refusal.
	follow := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: transport, CheckRedirect: follow}, nil
}

// secretLifetime is how long a secret from a file is used before the file is read
// again, so that the secret can be changed while the process runs.
const secretLifetime = 5 * time.Minute

func (c S3) credentials(context.Context) (aws.Credentials, error) {
	if c.AccessKeyID == "" {
		found := aws.Credentials{
			AccessKeyID:     os.Getenv("AWS_ACCESS_KEY_ID"),
			SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"),
			SessionToken:    os.Getenv("AWS_SESSION_TOKEN"),
			Source:          "environment",
		}
		if !found.HasKeys() {
			return found, fmt.Errorf("%w: %w", ErrRefused, &oona.FieldError{Field: "--s3-access-key-id", Reason: "is empty, and so are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; give it and --s3-secret-access-key-file, or set the two variables"})
		}
		return found, nil
	}
	secret, err := os.ReadFile(c.SecretFile)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("%w: %w: %w", ErrRefused, &oona.FieldError{Field: "--s3-secret-access-key-file", Reason: "cannot be read"}, err)
	}
	return aws.Credentials{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: strings.TrimSpace(string(secret)), Source: c.SecretFile,
		CanExpire: true, Expires: time.Now().Add(secretLifetime),
	}, nil
}
