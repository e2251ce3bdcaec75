package claimcheck

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/secret"
	"github.com/morphogenetic/oona/internal/size"
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
	MaxTensorBytes int64  `type:"size" help:"Maximum size of a tensor in the store."`
	Directory      string `name:"tensor-directory" placeholder:"DIR" help:"Directory of the tensor store, if --tensor-store is directory."`
	S3             S3     `embed:"" prefix:"s3-"`
}

// S3 says how to reach S3 or a compatible server. (The variables are named here,
// as kong would write S_3.)
type S3 struct {
	Endpoint    string `env:"OONA_S3_ENDPOINT" placeholder:"URL" help:"Endpoint, for example https://minio:9000. Default: AWS in the given region."`
	Region      string `env:"OONA_S3_REGION" placeholder:"REGION" help:"Region of the bucket."`
	PathStyle   bool   `env:"OONA_S3_PATH_STYLE" help:"Put the bucket in the path of URLs instead of the host name."`
	AccessKeyID string `env:"OONA_S3_ACCESS_KEY_ID" name:"access-key-id" placeholder:"ID" help:"Access key ID. Default: the credentials that the AWS SDK finds: variables AWS_..., shared files, web identity (IRSA), container endpoint (EKS Pod Identity, ECS), EC2 role."`
	SecretFile  string `env:"OONA_S3_SECRET_ACCESS_KEY_FILE" name:"secret-access-key-file" placeholder:"FILE" help:"File that contains the secret access key. It is read again when it changes."`
	CAFile      string `env:"OONA_S3_CA_FILE" name:"ca-file" placeholder:"FILE" help:"PEM file with the certificate authorities of the endpoint. Default: the system's. It is read again when it changes."`

	// Secrets counts and logs changes of the files. It may be nil.
	Secrets *secret.Files `kong:"-"`
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
	case strings.ContainsAny(c.S3.Endpoint, "@?#"): // not quoted, as it may have a password or a token; --check prints it even if it is not used
		return wrong("s3-endpoint", "has an @, a ? or a #; give only scheme, host and port, and the credentials with --s3-access-key-id and --s3-secret-access-key-file")
	case c.MaxTensorBytes <= 0:
		return wrong("max-tensor-bytes", fmt.Sprintf("is %s; give a size above 0", size.Text(c.MaxTensorBytes)))
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
	case c.S3.CAFile != "" && endpoint.Scheme == "http":
		return wrong("s3-ca-file", "has no effect, as --s3-endpoint is http://; give https://, or remove it")
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
	credentials, err := c.credentials()
	if err != nil {
		return nil, err
	}
	// Not from the SDK's configuration, so that variables such as AWS_ENDPOINT_URL or
	// AWS_REQUEST_CHECKSUM_CALCULATION have no effect on the store.
	options := s3.Options{
		Region:       c.Region,
		UsePathStyle: c.PathStyle,
		HTTPClient:   client,
		Credentials:  aws.NewCredentialsCache(credentials),
		HTTPSignerV4: freshSigner{},
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

// httpClient returns a client that trusts the authorities of the CA file. If they
// change, new connections are made with the new ones.
func (c S3) httpClient() (*http.Client, error) {
	// Redirects are not followed, as requests are signed for the host that they
	// are sent to. A redirect is reported as a refusal.
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if c.CAFile == "" {
		client.Transport = transport(nil)
		return client, nil
	}
	current, err := secret.Open(c.Secrets, "--s3-ca-file", []string{c.CAFile}, func(contents [][]byte) (*http.Transport, error) {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(contents[0]) {
			return nil, errNoAuthority
		}
		return transport(roots), nil
	})
	if err != nil {
		return nil, err
	}
	client.Transport = renewed{current}
	return client, nil
}

var errNoAuthority = errors.New("the file has no certificate in PEM form; give the authorities of the endpoint")

func transport(roots *x509.CertPool) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 32
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	return t
}

// renewed sends requests with the transport of a file's content. Idle connections of
// an earlier transport are closed after its idle timeout.
type renewed struct {
	current *secret.Value[*http.Transport]
}

func (r renewed) RoundTrip(request *http.Request) (*http.Response, error) {
	return r.current.Get().RoundTrip(request)
}

// credentials returns the credentials of the flags, or those of the SDK's chain. It
// sends no request.
func (c S3) credentials() (aws.CredentialsProvider, error) {
	if c.AccessKeyID == "" {
		return &chain{region: c.Region, files: c.Secrets}, nil
	}
	key, err := secret.Open(c.Secrets, "--s3-secret-access-key-file", []string{c.SecretFile}, secret.Text)
	if err != nil {
		return nil, err
	}
	return fileCredentials{id: c.AccessKeyID, secret: key}, nil
}
