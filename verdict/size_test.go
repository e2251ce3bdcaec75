package verdict

import (
	"testing"
	"unsafe"
)

// docs/verdict.md and the package's documentation say how much memory a judge needs.
func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(metric{}); n > 200 {
		t.Errorf("a metric takes %d bytes", n)
	}
	if n := unsafe.Sizeof(standing{}); n > 104 {
		t.Errorf("a reason takes %d bytes", n)
	}
	if n := unsafe.Sizeof(Judge{}); n > 560 {
		t.Errorf("a judge takes %d bytes beside", n)
	}
}
