package e2e

import (
	"os"
	"testing"

	"github.com/morphogenetic/oona/deploy/helm/e2e/kubelet"
)

func TestMain(m *testing.M) {
	kubelet.Become()
	os.Exit(m.Run())
}
