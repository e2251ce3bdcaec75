package claimcheck

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/morphogenetic/oona"
)

// What Open and Probe would refuse on this machine, CheckHere refuses, and it makes no
// file.
func TestCheckHere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "absent"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "absent"))
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // empty: nothing is wrong
	}{
		"none":                 {func(c *Config) { c.Kind, c.Directory = KindNone, file }, ""},
		"directory":            {func(c *Config) { c.Kind, c.Directory = KindDirectory, dir }, ""},
		"directory to be made": {func(c *Config) { c.Kind, c.Directory = KindDirectory, filepath.Join(dir, "a", "b") }, ""},
		"a file":               {func(c *Config) { c.Kind, c.Directory = KindDirectory, file }, "--tensor-directory"},
		"below a file":         {func(c *Config) { c.Kind, c.Directory = KindDirectory, filepath.Join(file, "a") }, "--tensor-directory"},
		"keys":                 {func(c *Config) { c.Kind, c.S3.AccessKeyID, c.S3.SecretFile = KindS3, "id", file }, ""},
		"no keys":              {func(c *Config) { c.Kind = KindS3 }, ""}, // the metadata of EC2 may have some
		"no secret":            {func(c *Config) { c.Kind, c.S3.AccessKeyID, c.S3.SecretFile = KindS3, "id", file+".absent" }, "--s3-secret-access-key-file"},
		"no authorities": {func(c *Config) {
			c.Kind, c.S3.AccessKeyID, c.S3.SecretFile, c.S3.CAFile = KindS3, "id", file, file+".absent"
		}, "--s3-ca-file"},
		"authorities not a PEM": {func(c *Config) { c.Kind, c.S3.AccessKeyID, c.S3.SecretFile, c.S3.CAFile = KindS3, "id", file, file }, "--s3-ca-file"},
	} {
		cfg := DefaultConfig()
		c.change(&cfg)
		err := cfg.CheckHere()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if wrong, ok := errors.AsType[*oona.FieldError](err); ok && wrong.Field != c.want {
			t.Errorf("%s: the field is %s, want %s", name, wrong.Field, c.want)
		}
	}
	t.Setenv("AWS_PROFILE", "absent")
	if wrong, ok := errors.AsType[*oona.FieldError](Config{Kind: KindS3, S3: S3{Region: "us-east-1"}}.CheckHere()); !ok || wrong.Field != "--s3-access-key-id" {
		t.Errorf("with a profile that does not exist: %v", wrong)
	}
	t.Setenv("TMPDIR", file)
	for kind, want := range map[string]error{KindNone: nil, KindS3: ErrSpool, KindDirectory: ErrSpool} {
		if err := (Config{Kind: kind, Directory: dir}).CheckHere(); !errors.Is(err, want) {
			t.Errorf("%s with a file for $TMPDIR: %v, want %v", kind, err, want)
		}
	}
	if made, err := os.ReadDir(dir); err != nil || len(made) != 1 {
		t.Errorf("%d entries were made: %v", len(made)-1, err)
	}
}
