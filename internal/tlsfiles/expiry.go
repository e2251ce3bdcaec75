package tlsfiles

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/secret"
)

// Warnings returns what is wrong with the certificate though it can be used: that it has
// expired, or expires soon. prefix is the one of the flags.
func (s ServerFlags) Warnings(prefix string) []*oona.FieldError {
	return expiring("--"+prefix+"tls-cert-file", s.CertFile)
}

// Warnings is like [ServerFlags.Warnings].
func (c ClientFlags) Warnings(prefix string) []*oona.FieldError {
	return expiring("--"+prefix+"cert-file", c.CertFile)
}

// expiring returns a warning if the certificate of a setting expires soon. Validate and
// Open report a file that cannot be used.
func expiring(setting, file string) []*oona.FieldError {
	if file == "" {
		return nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !secret.ExpiresSoon(leaf.NotBefore, leaf.NotAfter, time.Now()) {
		return nil
	}
	verb := "expires"
	if time.Now().After(leaf.NotAfter) {
		verb = "has expired"
	}
	return []*oona.FieldError{{Field: setting, Reason: fmt.Sprintf("has a certificate that %s on %s; renew it", verb, leaf.NotAfter.UTC().Format(time.RFC3339))}}
}
