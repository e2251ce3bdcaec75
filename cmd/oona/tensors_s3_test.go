package main

import (
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/claimcheck/claimchecktest"
	"github.com/morphogenetic/oona/claimcheck/embedded"
)

// All commands do with S3 what they do with a directory.
func TestTensorsOnS3(t *testing.T) {
	t.Parallel()
	s := newStoring(t)
	const bucket = "kasmina-tensors"
	server := claimchecktest.Server{AccessKeyID: "oona", SecretAccessKey: "secret-of-a-test"}
	handler, err := embedded.Handler(embedded.Options{Directory: s.dir, Bucket: bucket, AccessKeyID: server.AccessKeyID, SecretAccessKey: server.SecretAccessKey})
	if err != nil {
		t.Fatal(err)
	}
	listening := httptest.NewServer(handler)
	t.Cleanup(listening.Close)
	server.URL = listening.URL
	cfg := server.Config(t)
	if s.store, err = claimcheck.OpenS3(cfg, bucket, 1<<20); err != nil {
		t.Fatal(err)
	}
	s.dir = filepath.Join(s.dir, bucket)
	s.flags = []string{
		"--brokers", s.brokers, "--tensor-store=s3", "--s3-endpoint", server.URL, "--s3-path-style",
		"--s3-access-key-id", server.AccessKeyID, "--s3-secret-access-key-file", cfg.SecretFile,
	}
	used, unused := s.tensor("used", 30), s.tensor("unused", 30)
	s.publish(s.topics.SeedMetrics, s.frame(used))
	if r := s.gc(0, "--delete", "--yes", "--settle=1ms"); r.Result == nil || r.Result.Deleted.Objects != 1 || r.Result.Deleted.Bytes != unused.Size {
		t.Errorf("the result is %+v", r.Result)
	}
	s.holds(used)
	s.tensors(0, "verify")
	s.tensors(0, "ls", "--refs")
	if out, _ := s.tensors(0, "get", used.Key); out != "used" {
		t.Errorf("the tensor is %q", out)
	}
	s.tensors(exitFailed, "ls", "--tensor-bucket=another")
}
