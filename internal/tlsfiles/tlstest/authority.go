// Package tlstest makes the files of certificates for tests.
package tlstest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/morphogenetic/oona/internal/tlsfiles/authority"
)

// Authority is a certificate authority whose files are in a directory of a test.
type Authority struct {
	*authority.Authority
	File string // its certificate in PEM form

	t   testing.TB
	dir string
}

// NewAuthority returns a new authority with a directory of its own.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	of, err := authority.New(name, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a := &Authority{Authority: of, t: t, dir: t.TempDir()}
	a.File = a.write("ca.pem", of.PEM)
	return a
}

// Certificate is a certificate and its key in PEM files.
type Certificate struct{ CertFile, KeyFile string }

// Issue writes a certificate like that of [authority.Authority.Issue]. The files of an
// earlier certificate with its common name are replaced.
func (a *Authority) Issue(valid time.Duration, hosts ...string) Certificate {
	a.t.Helper()
	c, err := a.Authority.Issue(valid, hosts...)
	if err != nil {
		a.t.Fatal(err)
	}
	return Certificate{a.write(hosts[0]+".crt", c.Cert), a.write(hosts[0]+".key", c.Key)}
}

func (a *Authority) write(name string, content []byte) (path string) {
	a.t.Helper()
	path = filepath.Join(a.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}
