package kafka

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/secret"
	"github.com/morphogenetic/oona/internal/tlsfiles"
)

// Security is how connections to brokers are secured. Files are read again when they
// change, and what they contain then holds for new connections.
type Security struct {
	TLS      bool                 `name:"bus-tls" help:"Connect to the brokers over TLS, and verify their certificates. All connections use it; there is no fallback to plain text."`
	TLSFiles tlsfiles.ClientFlags `embed:"" prefix:"bus-tls-"`

	SASL         string `name:"bus-sasl" enum:"none,plain,scram-sha-256,scram-sha-512,oauthbearer" default:"none" placeholder:"MECHANISM" help:"How to authenticate to the brokers: none, plain, scram-sha-256, scram-sha-512 or oauthbearer. Without --bus-tls, others on the network can read a password of plain and a token of oauthbearer."`
	Username     string `name:"bus-sasl-username" placeholder:"NAME" help:"User for plain and scram."`
	PasswordFile string `name:"bus-sasl-password-file" placeholder:"FILE" help:"File with the password for plain and scram. It is read again when it changes."`
	TokenFile    string `name:"bus-sasl-token-file" placeholder:"FILE" help:"File with the token for oauthbearer. It is read again when it changes."`
}

// The flags of Security.
const (
	tlsPrefix    = "bus-tls-"
	tlsFlag      = "--bus-tls"
	saslFlag     = "--bus-sasl"
	usernameFlag = "--bus-sasl-username"
	passwordFlag = "--bus-sasl-password-file"
	tokenFlag    = "--bus-sasl-token-file"
)

// SASL mechanisms.
const (
	saslNone   = "none"
	saslPlain  = "plain"
	scram256   = "scram-sha-256"
	scram512   = "scram-sha-512"
	saslBearer = "oauthbearer"
)

// Validate returns an *oona.FieldError for the first setting that is wrong. It reads no
// files.
func (s Security) Validate() error {
	wrong := func(field, reason string) error { return &oona.FieldError{Field: field, Reason: reason} }
	if s.TLSFiles.Given() && !s.TLS {
		return wrong(tlsFlag, "is not set, but settings of --bus-tls-... are; set it, or remove them")
	}
	if err := s.TLSFiles.Validate(tlsPrefix); err != nil {
		return err
	}
	user := s.Username != "" || s.PasswordFile != ""
	switch s.SASL {
	case "", saslNone:
		if user || s.TokenFile != "" {
			return wrong(saslFlag, "is none, but a user, a password or a token is given; name the mechanism")
		}
	case saslPlain, scram256, scram512:
		switch {
		case s.Username == "":
			return wrong(usernameFlag, "is empty; "+s.SASL+" needs a user")
		case s.PasswordFile == "":
			return wrong(passwordFlag, "is empty; "+s.SASL+" needs a file with the password")
		case s.TokenFile != "":
			return wrong(tokenFlag, "is given, and "+s.SASL+" uses a password; remove it, or use --bus-sasl oauthbearer")
		}
	case saslBearer:
		switch {
		case s.TokenFile == "":
			return wrong(tokenFlag, "is empty; oauthbearer needs a file with the token")
		case user:
			return wrong(saslFlag, "is oauthbearer, which uses a token, but a user or a password is given; remove them")
		}
	default:
		return wrong(saslFlag, fmt.Sprintf("is %q; give none, plain, scram-sha-256, scram-sha-512 or oauthbearer", s.SASL))
	}
	return nil
}

// Warnings returns what is probably not meant: that a password or a token is sent without
// encryption, and that the client's certificate expires. SCRAM does not send the password.
func (s Security) Warnings() []*oona.FieldError {
	warnings := s.TLSFiles.Warnings(tlsPrefix)
	if !s.TLS && (s.SASL == saslPlain || s.SASL == saslBearer) {
		what := map[string]string{saslPlain: "the password", saslBearer: "the token"}[s.SASL]
		warnings = append(warnings, &oona.FieldError{Field: saslFlag, Reason: "is " + s.SASL + ", and " + what + " for the bus is sent in clear text, as the connections have no TLS; set --bus-tls, or use a mechanism of SCRAM"})
	}
	return warnings
}

// Check validates the settings and reads the files, as a connection would.
func (s Security) Check() error {
	if err := s.Validate(); err != nil {
		return err
	}
	_, err := s.open(nil)
	return err
}

// authenticates reports whether a mechanism of SASL is set.
func (s Security) authenticates() bool { return !slices.Contains([]string{"", saslNone}, s.SASL) }

// identity is what connections are secured with.
type identity struct {
	tls      *tlsfiles.Client // nil: no TLS
	sasl     string
	username string
	password *secret.Value[string] // or nil
	token    *secret.Value[string] // or nil
}

// open reads the files.
func (s Security) open(files *secret.Files) (*identity, error) {
	id := &identity{sasl: s.SASL, username: s.Username}
	var err error
	if s.TLS {
		if id.tls, err = tlsfiles.OpenClient(files, tlsPrefix, s.TLSFiles); err != nil {
			return nil, err
		}
	}
	if s.PasswordFile != "" {
		if id.password, err = secret.Open(files, passwordFlag, []string{s.PasswordFile}, s.parsePassword); err != nil {
			return nil, err
		}
	}
	if s.TokenFile != "" {
		if id.token, err = secret.Open(files, tokenFlag, []string{s.TokenFile}, secret.Text); err != nil {
			return nil, err
		}
	}
	return id, nil
}

// login opens the files of a Bus when it first connects. The copies of a Config share it.
type login struct {
	once sync.Once
	id   *identity
	err  error
}

// identity returns what connections are secured with.
func (c Config) identity() (*identity, error) {
	l := c.login
	if l == nil { // not of a Bus
		return c.Security.open(c.Secrets)
	}
	l.once.Do(func() { l.id, l.err = c.Security.open(c.Secrets) })
	return l.id, l.err
}

// secure adds the security to the settings of a client. If the files cannot be read, each
// connection fails with the reason.
func (c Config) secure(s *sarama.Config) {
	d := c.dialer(s)
	s.Net.Proxy.Enable = true
	s.Net.Proxy.Dialer = d
	d.id.authenticate(s)
}

func (c Config) dialer(s *sarama.Config) *dialer {
	id, err := c.identity()
	if err != nil {
		id = &identity{}
	}
	return &dialer{id: id, err: err, plain: net.Dialer{Timeout: s.Net.DialTimeout, KeepAlive: s.Net.KeepAlive}, clientID: c.ClientID, handshake: handshakeTimeout + c.Patience}
}

// dialer connects to brokers. sarama would take one TLS configuration and one password
// for the life of a client, and this one takes those of the moment. It also reports errors
// of the handshake as such.
type dialer struct {
	id       *identity
	err      error // why the identity could not be opened
	plain    net.Dialer
	clientID string

	handshake time.Duration // limit of TLS and SASL
}

// Dial returns a connection that is encrypted and, for plain, authenticated.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	if d.err != nil {
		return nil, d.err
	}
	conn, err := d.plain.Dial(network, address)
	if err != nil {
		return nil, err
	}
	secured, err := d.secure(conn, address)
	if err != nil {
		_ = conn.Close() // the handshake may have closed it
		return nil, err
	}
	return secured, nil
}

func (d *dialer) secure(conn net.Conn, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d.handshake)
	defer cancel()
	if d.id.tls != nil {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("the address of a broker: %w", err)
		}
		secured, err := handshake(ctx, conn, d.id.tls.Config(host))
		if err != nil {
			return nil, untrusted(address, err)
		}
		conn = secured
	}
	conn = &watched{Conn: conn, address: address, secured: d.id.tls != nil}
	if d.id.sasl == saslPlain {
		if err := authenticatePlain(ctx, conn, d.clientID, d.id.username, d.id.password.Get()); err != nil {
			return nil, fmt.Errorf("authenticate to %s: %w", address, err)
		}
	}
	return conn, nil
}
