package claimcheck_test

import (
	"errors"
	"testing"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
)

func TestConfig(t *testing.T) {
	for field, change := range map[string]func(*claimcheck.Config){
		"":                   func(*claimcheck.Config) {},
		"--tensor-bucket":    func(c *claimcheck.Config) { c.Kind, c.Bucket = claimcheck.KindS3, "" },
		"--max-tensor-bytes": func(c *claimcheck.Config) { c.Kind, c.MaxTensorBytes = claimcheck.KindS3, 0 },
		"--tensor-directory": func(c *claimcheck.Config) { c.Kind = claimcheck.KindDirectory },
		"--s3-endpoint":      func(c *claimcheck.Config) { c.Kind, c.S3.Endpoint = claimcheck.KindS3, "minio:9000" },
		"--s3-ca-file": func(c *claimcheck.Config) {
			c.Kind, c.S3.Endpoint, c.S3.CAFile = claimcheck.KindS3, "http://minio:9000", "ca.pem"
		},
		"--s3-region":        func(c *claimcheck.Config) { c.Kind, c.S3.Region = claimcheck.KindS3, "" },
		"--s3-access-key-id": func(c *claimcheck.Config) { c.Kind, c.S3.AccessKeyID = claimcheck.KindS3, "id" },
	} {
		config := claimcheck.DefaultConfig()
		change(&config)
		store, err := claimcheck.Open(config)
		if field == "" {
			if store != nil || err != nil {
				t.Errorf("by default there is a store, %v, error %v", store, err)
			}
		} else if wrong, ok := errors.AsType[*oona.FieldError](err); !ok || wrong.Field != field {
			t.Errorf("error is %v, want one of %s", err, field)
		}
	}
}
