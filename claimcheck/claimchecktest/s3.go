package claimchecktest

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/morphogenetic/oona/claimcheck"
)

// Server is a server of S3's protocol that accepts the bucket in the path.
type Server struct {
	URL             string
	AccessKeyID     string
	SecretAccessKey string
	Client          *http.Client // of the test itself; nil for the default client
}

// Config returns the configuration of a store on the server.
func (s Server) Config(t *testing.T) claimcheck.S3 {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(s.SecretAccessKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return claimcheck.S3{Endpoint: s.URL, Region: "us-east-1", PathStyle: true, AccessKeyID: s.AccessKeyID, SecretFile: secret}
}

// S3 returns a Place in a bucket of the server. The bucket must exist and be empty.
func S3(t *testing.T, server Server, bucket string) Place {
	t.Helper()
	client := server.client()
	return Place{
		Open: func(t *testing.T, limit int64) Store {
			t.Helper()
			store, err := claimcheck.OpenS3(server.Config(t), bucket, limit)
			if err != nil {
				t.Fatal(err)
			}
			return store
		},
		Overwrite: func(t *testing.T, key string, content []byte) {
			t.Helper()
			if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(content)}); err != nil {
				t.Fatal(err)
			}
		},
		List: func(t *testing.T) (keys, unfinished []string) {
			t.Helper()
			pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &bucket, MaxKeys: aws.Int32(3)})
			for pages.HasMorePages() {
				page, err := pages.NextPage(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, object := range page.Contents {
					if !strings.HasPrefix(*object.Key, claimcheck.ProbePrefix) {
						keys = append(keys, *object.Key)
					}
				}
			}
			uploads, err := client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &bucket})
			if api := smithy.APIError(nil); errors.As(err, &api) && api.ErrorCode() == "NoSuchUpload" {
				return keys, nil // gofakes3 answers this for a bucket that never had an upload
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, upload := range uploads.Uploads {
				unfinished = append(unfinished, *upload.Key)
			}
			return keys, unfinished
		},
	}
}

// CreateBucket makes a bucket on the server.
func (s Server) CreateBucket(t *testing.T, bucket string) {
	t.Helper()
	if _, err := s.client().CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
}

func (s Server) client() *s3.Client {
	options := s3.Options{
		BaseEndpoint: &s.URL, Region: "us-east-1", UsePathStyle: true,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: s.AccessKeyID, SecretAccessKey: s.SecretAccessKey}, nil
		}),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
	}
	if s.Client != nil {
		options.HTTPClient = s.Client
	}
	return s3.New(options)
}
