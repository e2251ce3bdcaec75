package access

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/morphogenetic/oona/internal/secret"
)

// The reasons why the client of a request is not known. An error that wraps
// ErrNoCredentials says which credentials there are.
var (
	ErrNoCredentials = errors.New("the request has no credentials")
	ErrUnknown       = errors.New("the credentials belong to no identity: the token or the certificate is wrong, or no longer valid")
)

var (
	errNoToken       = fmt.Errorf("%w; send a token (Authorization: Bearer TOKEN)", ErrNoCredentials)
	errNoCertificate = fmt.Errorf("%w; use a client certificate", ErrNoCredentials)
	errNeither       = fmt.Errorf("%w; send a token (Authorization: Bearer TOKEN), or use a client certificate", ErrNoCredentials)
)

// Challenge returns the header WWW-Authenticate of an answer to a request with an error
// of Identify, after RFC 6750.
func Challenge(err error) string {
	if errors.Is(err, ErrNoCredentials) {
		return `Bearer realm="oona"`
	}
	return `Bearer realm="oona", error="invalid_token"`
}

// Gate knows the clients of a server.
type Gate struct {
	list *secret.Value[*list] // nil if every client with a valid certificate is accepted
}

// Open reads an access file. The file is read again when it changes; see package secret.
// setting is the flag that names the file. The error wraps an *oona.FieldError for it.
func Open(files *secret.Files, setting, file string) (*Gate, error) {
	parsed, err := secret.Open(files, setting, []string{file}, func(contents [][]byte) (*list, error) { return parse(contents[0]) })
	if err != nil {
		return nil, err
	}
	return &Gate{parsed}, nil
}

// AnyCertificate returns a gate that knows each client whose certificate was verified.
// It has all roles.
func AnyCertificate() *Gate { return &Gate{} }

// Identify returns who sends a request. The error wraps ErrNoCredentials or is ErrUnknown.
// A token goes before a certificate.
//
// The token is looked up by its hash in a map. How long that takes tells an attacker at
// most something about hashes that are in the file. To use that he would need a token
// with a given hash, which is as hard as to find the token without this knowledge. So
// no comparison in constant time is needed.
func (g *Gate) Identify(r *http.Request) (*Identity, error) {
	if g.list == nil {
		return anyOf(verified(r))
	}
	known := g.list.Get()
	if given := r.Header.Values("Authorization"); len(given) > 0 {
		token, ok := bearer(given)
		if !ok {
			return nil, ErrUnknown
		}
		return orUnknown(known.byHash[HashOf(token)])
	}
	certificate := verified(r)
	if certificate == nil {
		return nil, known.missing()
	}
	return orUnknown(known.certified(certificate))
}

// missing returns the error for a request without credentials.
func (l *list) missing() error {
	switch {
	case len(l.byName) == 0:
		return errNoToken
	case len(l.byHash) == 0:
		return errNoCertificate
	}
	return errNeither
}

// anyOf returns an identity that may do everything, if there is a certificate.
func anyOf(certificate *x509.Certificate) (*Identity, error) {
	if certificate == nil {
		return nil, errNoCertificate
	}
	all := []string{everything}
	return &Identity{Name: nameOf(certificate), roles: roles, runs: all, producers: all}, nil
}

// nameOf returns the name of a certificate for logs, and for telling clients apart. Many
// authorities leave the common name empty.
func nameOf(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	}
	return fmt.Sprintf("certificate %x", c.SerialNumber)
}

func orUnknown(identity *Identity) (*Identity, error) {
	if identity == nil {
		return nil, ErrUnknown
	}
	return identity, nil
}

// bearer returns the token of the header Authorization.
func bearer(given []string) (token string, ok bool) {
	scheme, token, ok := strings.Cut(given[0], " ")
	token = strings.Trim(token, " ")
	return token, ok && len(given) == 1 && strings.EqualFold(scheme, "Bearer") && token != ""
}

// verified returns the certificate of the client if it was verified and has not expired
// since, or nil.
func verified(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	leaf := r.TLS.VerifiedChains[0][0]
	if time.Now().After(leaf.NotAfter) {
		return nil
	}
	return leaf
}

// certified returns the identity of a certificate: the one of its common name or, if
// there is none, of the first of its DNS names that has one.
func (l *list) certified(certificate *x509.Certificate) *Identity {
	if identity := l.byName[certificate.Subject.CommonName]; identity != nil {
		return identity
	}
	for _, name := range certificate.DNSNames {
		if identity := l.byName[name]; identity != nil {
			return identity
		}
	}
	return nil
}
