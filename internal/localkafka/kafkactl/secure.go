package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/morphogenetic/oona/internal/localkafka"
	"github.com/morphogenetic/oona/internal/tlsfiles/authority"
)

const (
	user       = "oona" // of SASL, and common name of the client's certificate
	certsValid = 365 * 24 * time.Hour
)

// files are the secrets of a cluster in its directory.
type files struct{ dir string }

func (f files) path(name string) string { return filepath.Join(f.dir, "secrets", name) }

// make makes the secrets, unless they are there from an earlier start.
func (f files) make() error {
	if _, err := os.Stat(f.path("token")); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ca, err := authority.New("kafkactl", certsValid)
	if err != nil {
		return err
	}
	server, err := ca.Issue(certsValid, "localhost", "127.0.0.1")
	if err != nil {
		return err
	}
	client, err := ca.Issue(certsValid, user)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.path(""), 0o700); err != nil {
		return fmt.Errorf("make a directory for secrets: %w", err)
	}
	for _, file := range []struct {
		name    string
		content []byte
	}{
		{"ca.pem", ca.PEM},
		{"server.pem", server.Cert},
		{"server.key", server.Key},
		{"client.pem", client.Cert},
		{"client.key", client.Key},
		{"password", []byte(rand.Text())},
		{"token", []byte(localkafka.UnsecuredToken(user, time.Now().Add(certsValid)))},
	} {
		if err := os.WriteFile(f.path(file.name), file.content, 0o600); err != nil {
			return fmt.Errorf("write a secret: %w", err)
		}
	}
	return nil
}

// secure returns the listeners sasl, mtls and tls. The user and the certificate are those
// of a super user.
func (f files) secure() (*localkafka.Secure, error) {
	if err := f.make(); err != nil {
		return nil, err
	}
	contents := make(map[string][]byte)
	for _, name := range []string{"ca.pem", "server.pem", "server.key", "password"} {
		content, err := os.ReadFile(f.path(name))
		if err != nil {
			return nil, fmt.Errorf("read a secret: %w", err)
		}
		contents[name] = content
	}
	server := authority.Certificate{Cert: contents["server.pem"], Key: contents["server.key"]}
	return &localkafka.Secure{
		Listeners: []localkafka.Listener{
			{Name: "sasl", Certificate: server, SASL: true},
			{Name: "mtls", Certificate: server, ClientCA: contents["ca.pem"]},
			{Name: "tls", Certificate: server},
		},
		Users:      map[string]string{user: string(contents["password"])},
		SuperUsers: []string{user, "CN=" + user},
	}, nil
}

// explain prints how to connect to the secure listeners.
func (f files) explain(cluster *localkafka.Cluster, messages io.Writer) {
	at := func(listener string) string { return strings.Join(cluster.SecureAddrs(listener), ",") }
	tls := "--bus-tls --bus-tls-ca-file " + f.path("ca.pem")
	fmt.Fprintf(messages, `secure listeners:
  --brokers %s %s --bus-sasl scram-sha-512 --bus-sasl-username %s --bus-sasl-password-file %s
    (or plain, or scram-sha-256; or --bus-sasl oauthbearer --bus-sasl-token-file %s)
  --brokers %s %s --bus-tls-cert-file %s --bus-tls-key-file %s
  --brokers %s %s
`, at("sasl"), tls, user, f.path("password"), f.path("token"),
		at("mtls"), tls, f.path("client.pem"), f.path("client.key"), at("tls"), tls)
}
