package main

import (
	"crypto/x509"
	"encoding/pem"
	"testing"
)

// The file has all roots but the few that Mozilla trusts only in part.
func TestCertificates(t *testing.T) {
	count := 0
	for rest := certificates(); ; count++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if !root.IsCA {
			t.Errorf("%s is no authority", root.Subject)
		}
	}
	if count < 100 {
		t.Errorf("there are %d roots, Mozilla trusts more than 100", count)
	}
}

func TestSameBaseAgain(t *testing.T) {
	a, errA := write(t.TempDir())
	b, errB := write(t.TempDir())
	if errA != nil || errB != nil || a != b {
		t.Errorf("%s and %s (%v, %v)", a, b, errA, errB)
	}
}
