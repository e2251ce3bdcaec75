package claimcheck_test

import (
	"strings"
	"testing"

	"github.com/morphogenetic/oona/claimcheck"
)

func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*claimcheck.Config){
		"":                             func(*claimcheck.Config) {},
		"--tensor-bucket: is empty":    func(c *claimcheck.Config) { c.Kind, c.Bucket = claimcheck.KindS3, "" },
		"--max-tensor-bytes: is 0":     func(c *claimcheck.Config) { c.Kind, c.MaxTensorBytes = claimcheck.KindS3, 0 },
		"--tensor-directory: is empty": func(c *claimcheck.Config) { c.Kind = claimcheck.KindDirectory },
		`--s3-endpoint: is "minio:9000"; give a URL`:  func(c *claimcheck.Config) { c.Kind, c.S3.Endpoint = claimcheck.KindS3, "minio:9000" },
		"--s3-region: is empty":                       func(c *claimcheck.Config) { c.Kind, c.S3.Region = claimcheck.KindS3, "" },
		"--s3-access-key-id: and --s3-secret-access-": func(c *claimcheck.Config) { c.Kind, c.S3.AccessKeyID = claimcheck.KindS3, "id" },
	} {
		config := claimcheck.DefaultConfig()
		change(&config)
		store, err := claimcheck.Open(config)
		if want == "" {
			if store != nil || err != nil {
				t.Errorf("by default there is a store, %v, error %v", store, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
}
