// Package tlsfiles makes TLS configurations from certificates, keys and certificate
// authorities in PEM files. The files are read again when they change, so certificates
// can be renewed without a restart; see package secret.
package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/secret"
)

// ClientFlags are the settings of a TLS client. They are embedded with a prefix, for
// example "bus-tls-".
type ClientFlags struct {
	CAFile     string `name:"ca-file" placeholder:"FILE" help:"PEM file with the certificate authorities of the servers. Default: the system's."`
	ServerName string `name:"server-name" placeholder:"NAME" help:"Name that the servers' certificates must have. Default: the host of each address."`
	MinVersion string `name:"min-version" enum:"1.2,1.3" default:"1.2" help:"Lowest version of TLS: 1.2 or 1.3."`
	CertFile   string `name:"cert-file" placeholder:"FILE" help:"PEM file with the client's certificate and its chain, for servers that ask for one (mTLS)."`
	KeyFile    string `name:"key-file" placeholder:"FILE" help:"PEM file with the private key of the client's certificate."`
}

// Validate returns an *oona.FieldError for the first setting that is wrong. prefix is
// the one of the flags, for example "bus-tls-". It reads no files.
func (c ClientFlags) Validate(prefix string) error {
	return pair(prefix, c.CertFile, c.KeyFile)
}

// pair returns an error unless both files of a certificate are given, or neither.
func pair(prefix, cert, key string) error {
	if (cert == "") == (key == "") {
		return nil
	}
	missing, given := "key-file", "cert-file"
	if cert == "" {
		missing, given = given, missing
	}
	return &oona.FieldError{Field: "--" + prefix + missing, Reason: fmt.Sprintf("is empty, and --%s%s is given; give both or neither", prefix, given)}
}

// Given reports whether any setting differs from its default.
func (c ClientFlags) Given() bool {
	return c.CAFile != "" || c.ServerName != "" || c.MinVersion == "1.3" || c.CertFile != "" || c.KeyFile != ""
}

// Client makes the TLS configuration of a connection to a server.
type Client struct {
	flags ClientFlags
	roots *secret.Value[*x509.CertPool]   // nil: the system's
	own   *secret.Value[*tls.Certificate] // nil: none
}

// OpenClient reads the files of a client. Its errors wrap an *oona.FieldError.
func OpenClient(files *secret.Files, prefix string, flags ClientFlags) (*Client, error) {
	err := flags.Validate(prefix)
	if err != nil {
		return nil, err
	}
	c := &Client{flags: flags}
	if flags.CAFile != "" {
		if c.roots, err = secret.Open(files, "--"+prefix+"ca-file", []string{flags.CAFile}, authorities); err != nil {
			return nil, err
		}
	}
	if flags.CertFile != "" {
		if c.own, err = openCertificate(files, "--"+prefix+"cert-file", flags.CertFile, flags.KeyFile); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Config returns the configuration for one connection to a host, with what the files
// contain now. The server must have a certificate for the host, or for ServerName.
func (c *Client) Config(host string) *tls.Config {
	config := &tls.Config{ServerName: c.flags.ServerName, MinVersion: minVersion(c.flags.MinVersion)}
	if config.ServerName == "" {
		config.ServerName = host
	}
	if c.roots != nil {
		config.RootCAs = c.roots.Get()
	}
	if c.own != nil {
		config.Certificates = []tls.Certificate{*c.own.Get()}
	}
	return config
}

func minVersion(text string) uint16 {
	if text == "1.3" {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

// authorities parses a PEM file of certificate authorities.
func authorities(contents [][]byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(contents[0]) {
		return nil, errNoCertificate
	}
	return pool, nil
}

var errNoCertificate = errors.New("the file has no certificate in PEM form")

// openCertificate reads a certificate and its key. setting is the flag that names the
// certificate. files gets to know when it expires.
func openCertificate(files *secret.Files, setting, certFile, keyFile string) (*secret.Value[*tls.Certificate], error) {
	return secret.Open(files, setting, []string{certFile, keyFile}, func(contents [][]byte) (*tls.Certificate, error) {
		pair, err := tls.X509KeyPair(contents[0], contents[1])
		if err != nil {
			return nil, fmt.Errorf("the certificate and its key do not go together: %w", err)
		}
		files.Valid(setting, pair.Leaf.NotBefore, pair.Leaf.NotAfter)
		return &pair, nil
	})
}
