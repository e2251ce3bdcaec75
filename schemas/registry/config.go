package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/secret"
	"github.com/morphogenetic/oona/internal/tlsfiles"
)

// Config configures the registry. Without a URL, there is no registry.
type Config struct {
	URLs         []string             `name:"registry-url" placeholder:"URL" help:"Base URL of a schema registry with Confluent's REST interface, or of several that answer alike."`
	Username     string               `name:"registry-username" placeholder:"NAME" help:"User for basic authentication at the registry."`
	PasswordFile string               `name:"registry-password-file" placeholder:"FILE" help:"File with the password of the user. It is read again when it changes."`
	TokenFile    string               `name:"registry-token-file" placeholder:"FILE" help:"File with a bearer token for the registry. It is read again when it changes."`
	TLS          tlsfiles.ClientFlags `embed:"" prefix:"registry-"`
	Cache        string               `name:"registry-cache" placeholder:"FILE" help:"File that keeps the schemas that were looked up, for when the registry does not answer. It is made if it does not exist. Delete it if the registry is replaced by an empty one."`

	// Secrets counts and logs changes of the files. It may be nil.
	Secrets *secret.Files `kong:"-"`
	// Transport sends the requests. If it is nil, a transport with the settings for TLS is used.
	Transport http.RoundTripper `kong:"-"`
}

// Given reports whether a registry is configured.
func (c *Config) Given() bool { return len(c.URLs) > 0 }

// Validate returns an *oona.FieldError for the first setting that is not valid, or whose file
// cannot be used.
func (c *Config) Validate() error {
	wrong := func(flag, reason string, args ...any) error {
		return &oona.FieldError{Field: "--registry-" + flag, Reason: fmt.Sprintf(reason, args...)}
	}
	if !c.Given() {
		for flag, given := range map[string]bool{"username": c.Username != "", "password-file": c.PasswordFile != "", "token-file": c.TokenFile != "", "cache": c.Cache != "", "ca-file": c.TLS.Given()} {
			if given {
				return wrong("url", "is empty, and --registry-%s is given; give the URL of the registry, too", flag)
			}
		}
		return nil
	}
	for _, text := range c.URLs {
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			return wrong("url", "has an entry that is not a URL with http or https, a host, and the path of the registry if it has one")
		case u.User != nil:
			return wrong("url", "has a user or a password; use --registry-username and --registry-password-file")
		case u.RawQuery != "" || u.Fragment != "":
			return wrong("url", "is %s; give it without a query and a fragment", u.Redacted())
		}
	}
	switch {
	case (c.Username == "") != (c.PasswordFile == ""):
		return wrong("password-file", "needs --registry-username, and the reverse; give both or neither")
	case c.Username != "" && c.TokenFile != "":
		return wrong("token-file", "is given, and so is --registry-username; give only one of them")
	case strings.Contains(c.Username, ":"):
		return wrong("username", "has a colon, which basic authentication does not allow")
	}
	files := *c
	files.Secrets = nil
	_, err := files.client()
	return err
}

// Warnings describes settings that are allowed, but probably a mistake.
func (c *Config) Warnings() []*oona.FieldError {
	warnings := c.TLS.Warnings("registry-")
	for _, text := range c.URLs {
		if strings.HasPrefix(text, "http:") && (c.PasswordFile != "" || c.TokenFile != "") {
			return append(warnings, &oona.FieldError{Field: "--registry-url", Reason: "begins with http, so the password or the token is sent in clear text; use https"})
		}
	}
	return warnings
}

// The limits of a request.
const (
	requestTimeout = 5 * time.Second
	maxResponse    = 4 << 20 // bytes
)

// client returns the client of the registry's interface.
func (c *Config) client() (*sr.Client, error) {
	authorize, err := c.authorization()
	if err != nil {
		return nil, err
	}
	transport := c.Transport
	if transport == nil {
		if transport, err = c.transport(); err != nil {
			return nil, err
		}
	}
	return sr.NewClient(
		sr.URLs(c.URLs...), sr.UserAgent("oona"), sr.PreReq(authorize),
		sr.HTTPClient(&http.Client{Timeout: requestTimeout, Transport: bounded{transport}}))
}

// transport returns a transport whose new connections use the current content of the files of
// certificates, except for connections through a proxy.
func (c *Config) transport() (http.RoundTripper, error) {
	secure, err := tlsfiles.OpenClient(c.Secrets, "registry-", c.TLS)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = secure.Config("") // for a connection through a proxy
	transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return (&tls.Dialer{Config: secure.Config(host)}).DialContext(ctx, network, address)
	}
	return transport, nil
}

// authorization returns a function that adds credentials to a request. It uses the current
// content of the files.
func (c *Config) authorization() (func(*http.Request) error, error) {
	switch {
	case c.TokenFile != "":
		token, err := secret.Open(c.Secrets, "--registry-token-file", []string{c.TokenFile}, secret.Text)
		if err != nil {
			return nil, err
		}
		return func(r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+token.Get())
			return nil
		}, nil
	case c.PasswordFile != "":
		password, err := secret.Open(c.Secrets, "--registry-password-file", []string{c.PasswordFile}, secret.Text)
		if err != nil {
			return nil, err
		}
		return func(r *http.Request) error {
			r.SetBasicAuth(c.Username, password.Get())
			return nil
		}, nil
	}
	return func(*http.Request) error { return nil }, nil
}

// bounded limits the size of responses.
type bounded struct{ http.RoundTripper }

var errResponse = errors.New("the registry's answer is too large")

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		response.Body = &boundedBody{response.Body, maxResponse}
	}
	return response, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left+1)])
	if b.left -= n; b.left < 0 {
		return 0, fmt.Errorf("%w: it has more than %d bytes", errResponse, maxResponse)
	}
	return n, err
}
