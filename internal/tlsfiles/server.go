package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/secret"
)

// ServerFlags are the settings of a TLS server. They are embedded with a prefix, for
// example "listen-". Without a certificate the server speaks plain HTTP.
type ServerFlags struct {
	CertFile     string `name:"tls-cert-file" placeholder:"FILE" help:"PEM file with the server's certificate and its chain. With it, the address speaks only TLS."`
	KeyFile      string `name:"tls-key-file" placeholder:"FILE" help:"PEM file with the private key of the server's certificate."`
	ClientCAFile string `name:"client-ca-file" placeholder:"FILE" help:"PEM file with the certificate authorities of clients (mTLS)."`
}

// Validate returns an *oona.FieldError for the first setting that is wrong. It reads no
// files.
func (s ServerFlags) Validate(prefix string) error {
	if s.ClientCAFile != "" && s.CertFile == "" {
		return &oona.FieldError{Field: "--" + prefix + "client-ca-file", Reason: fmt.Sprintf("needs TLS; give --%stls-cert-file and --%stls-key-file, too", prefix, prefix)}
	}
	return pair(prefix+"tls-", s.CertFile, s.KeyFile)
}

// OpenServer reads the files of a server and returns its configuration, or nil if the
// flags have no certificate. A certificate that a client shows must be of ClientCAFile.
// clients says whether each client must show one: tls.RequireAndVerifyClientCert, or
// tls.VerifyClientCertIfGiven; it has no effect without ClientCAFile. Errors wrap an
// *oona.FieldError.
func OpenServer(files *secret.Files, prefix string, flags ServerFlags, clients tls.ClientAuthType) (*tls.Config, error) {
	if err := flags.Validate(prefix); err != nil || flags.CertFile == "" {
		return nil, err
	}
	own, err := openCertificate(files, "--"+prefix+"tls-cert-file", flags.CertFile, flags.KeyFile)
	if err != nil {
		return nil, err
	}
	var roots *secret.Value[*x509.CertPool]
	if flags.ClientCAFile != "" {
		if roots, err = secret.Open(files, "--"+prefix+"client-ca-file", []string{flags.ClientCAFile}, authorities); err != nil {
			return nil, err
		}
	}
	current := func(*tls.ClientHelloInfo) (*tls.Config, error) {
		config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*own.Get()}, NextProtos: protocols}
		if roots != nil {
			config.ClientCAs, config.ClientAuth = roots.Get(), clients
		}
		return config, nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: current, NextProtos: protocols}, nil
}

// protocols has only HTTP/1.1, as ingest limits the rate and the time of each
// connection, and a connection of HTTP/2 carries many requests.
var protocols = []string{"http/1.1"}
