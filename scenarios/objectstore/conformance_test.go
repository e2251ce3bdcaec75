package objectstore

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/morphogenetic/oona/claimcheck/claimchecktest"
)

func TestVersitygw(t *testing.T) {
	g := startGateway(t, filepath.Join(t.TempDir(), "objects"))
	buckets := 0
	claimchecktest.Run(t, func(t *testing.T) claimchecktest.Place {
		buckets++
		bucket := fmt.Sprintf("tensors-%d", buckets)
		g.CreateBucket(t, bucket)
		return claimchecktest.S3(t, g.Server, bucket)
	})
}
