package access

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona/internal/secret"
)

// request has the given headers Authorization and, if leaf is not nil, a certificate
// that was verified.
func request(leaf *x509.Certificate, authorization ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, value := range authorization {
		r.Header.Add("Authorization", value)
	}
	if leaf != nil {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}
	}
	return r
}

func TestIdentify(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.yaml")
	if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	gate, err := Open(nil, "--listen-access-file", file)
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(valid time.Duration, common string, dns ...string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: common}, DNSNames: dns, NotAfter: time.Now().Add(valid)}
	}
	unverified := request(nil)
	unverified.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf(time.Hour, "trainer.test")}}
	for name, test := range map[string]struct {
		request *http.Request
		who     string // "": nobody, for the reason why
		why     error
	}{
		"nothing":                       {request(nil), "", ErrNoCredentials},
		"a token":                       {request(nil, "Bearer old"), "trainers", nil},
		"another token of the identity": {request(nil, "Bearer new"), "trainers", nil},
		"the scheme in lower case":      {request(nil, "bearer  scrape"), "prometheus", nil},
		"a wrong token":                 {request(nil, "Bearer olds"), "", ErrUnknown},
		"the hash as a token":           {request(nil, "Bearer "+HashOf("old").String()), "", ErrUnknown},
		"no token":                      {request(nil, "Bearer "), "", ErrUnknown},
		"another scheme":                {request(nil, "Basic old"), "", ErrUnknown},
		"no scheme":                     {request(nil, "old"), "", ErrUnknown},
		"an empty header":               {request(nil, ""), "", ErrUnknown},
		"two tokens":                    {request(nil, "Bearer old", "Bearer scrape"), "", ErrUnknown},
		"a certificate's common name":   {request(leaf(time.Hour, "trainer.test")), "trainers", nil},
		"a certificate's DNS name":      {request(leaf(time.Hour, "x", "y", "trainer.test")), "trainers", nil},
		"a certificate of nobody":       {request(leaf(time.Hour, "x", "y")), "", ErrUnknown},
		"a certificate that expired":    {request(leaf(-time.Second, "trainer.test")), "", ErrNoCredentials},
		"an unverified certificate":     {unverified, "", ErrNoCredentials},
		"a token beside a certificate":  {request(leaf(time.Hour, "trainer.test"), "Bearer scrape"), "prometheus", nil},
		"a wrong token beside one":      {request(leaf(time.Hour, "trainer.test"), "Bearer x"), "", ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			who, err := gate.Identify(test.request)
			if (who == nil) != (test.who == "") || who != nil && who.Name != test.who || !errors.Is(err, test.why) {
				t.Errorf("it is %+v, error %v", who, err)
			}
		})
	}
	if _, err := gate.Identify(request(nil)); !errors.Is(err, errNeither) {
		t.Errorf("tokens and certificates: error %v", err)
	}
	if who, err := AnyCertificate().Identify(request(leaf(time.Hour, "kubelet"))); err != nil || who.Name != "kubelet" || !who.Has(Profile) || !who.Run("r") || !who.Producer("p") {
		t.Errorf("any certificate: %+v, error %v", who, err)
	}
	bare := leaf(time.Hour, "")
	bare.SerialNumber = big.NewInt(0xab)
	spiffe := leaf(time.Hour, "")
	spiffe.URIs = []*url.URL{{Scheme: "spiffe", Host: "x", Path: "/trainer"}}
	for want, certificate := range map[string]*x509.Certificate{
		"trainer.test":       leaf(time.Hour, "", "trainer.test", "other.test"),
		"spiffe://x/trainer": spiffe,
		"certificate ab":     bare,
	} { // they must not be one client
		if who, err := AnyCertificate().Identify(request(certificate)); err != nil || who.Name != want {
			t.Errorf("a certificate without a common name: %+v, error %v, want %s", who, err, want)
		}
	}
	if _, err := AnyCertificate().Identify(request(nil, "Bearer old")); !errors.Is(err, errNoCertificate) {
		t.Errorf("no certificate: error %v", err)
	}
}

// A client without credentials is told which ones there are.
func TestMissingCredentialsAreNamed(t *testing.T) {
	for credentials, want := range map[string]error{
		"tokens: [" + HashOf("a").String() + "]":                         errNoToken,
		"certificates: [a.test]":                                         errNoCertificate,
		"certificates: [a.test], tokens: [" + HashOf("a").String() + "]": errNeither,
	} {
		l, err := parse([]byte("identities:\n- {name: a, roles: [metrics], " + credentials + "}\n"))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.missing(); !errors.Is(err, want) {
			t.Errorf("%s: the error is %v", credentials, err)
		}
	}
}

// Tokens are rotated without a restart: both are valid for a while, then the new one. A
// file that is bad after a change does not lock anybody out.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "access.yaml")
		write := func(content string) {
			t.Helper()
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		with := func(tokens ...string) string {
			var hashes []string
			for _, token := range tokens {
				hashes = append(hashes, HashOf(token).String())
			}
			return "identities:\n- name: a\n  tokens: [" + strings.Join(hashes, ", ") + "]\n  roles: [metrics]\n"
		}
		write(with("old"))
		gate, err := Open(nil, "--admin-access-file", file)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			content  string
			old, new bool
		}{
			{with("old"), true, false},
			{with("old", "new"), true, true},
			{with("new"), false, true},
			{"identities: []\n", false, true},
			{with("old"), true, false},
		} {
			write(step.content)
			time.Sleep(secret.Interval)
			_, oldErr := gate.Identify(request(nil, "Bearer old"))
			_, newErr := gate.Identify(request(nil, "Bearer new"))
			if (oldErr == nil) != step.old || (newErr == nil) != step.new {
				t.Errorf("with %q: the old token: %v; the new token: %v", step.content, oldErr, newErr)
			}
		}
	})
}

func TestNewToken(t *testing.T) {
	a, b := NewToken(), NewToken()
	if a == b || len(a) != len(tokenPrefix)+43 {
		t.Errorf("tokens are %q and %q", a, b)
	}
	if token, ok := bearer([]string{"Bearer " + a}); !ok || token != a {
		t.Errorf("as a header it is %q", token)
	}
}
