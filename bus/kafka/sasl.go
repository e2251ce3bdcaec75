package kafka

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"

	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/secret"
)

// authenticate makes sarama authenticate each new connection with the password or the
// token that the file has then. For plain, the dialer does it.
func (id *identity) authenticate(s *sarama.Config) {
	switch id.sasl {
	case scram256, scram512:
		hash, mechanism := scram.SHA256, sarama.SASLMechanism(sarama.SASLTypeSCRAMSHA256)
		if id.sasl == scram512 {
			hash, mechanism = scram.SHA512, sarama.SASLTypeSCRAMSHA512
		}
		s.Net.SASL.Enable = true
		s.Net.SASL.Mechanism = mechanism
		s.Net.SASL.User = id.username
		s.Net.SASL.Password = "from a file" // sarama wants one, and scramClient takes the file's
		s.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: hash, id: id} }
	case saslBearer:
		s.Net.SASL.Enable = true
		s.Net.SASL.Mechanism = sarama.SASLTypeOAuth
		s.Net.SASL.TokenProvider = bearer{id}
	}
}

// bearer is a sarama.AccessTokenProvider.
type bearer struct{ id *identity }

// Token returns the token that the file has now.
func (b bearer) Token() (*sarama.AccessToken, error) {
	return &sarama.AccessToken{Token: b.id.token.Get()}, nil
}

var errNotPrepared = fmt.Errorf("%w: %s or the file of %s has characters that SCRAM does not allow (RFC 4013)", bus.ErrCredentials, usernameFlag, passwordFlag)

// parsePassword parses the file of the password. Its error does not quote the file.
func (s Security) parsePassword(contents [][]byte) (string, error) {
	text, err := secret.Text(contents)
	if err == nil && (s.SASL == scram256 || s.SASL == scram512) {
		if _, unprepared := scram.SHA256.NewClient(s.Username, text, ""); unprepared != nil {
			err = errNotPrepared // unprepared has the password
		}
	}
	return text, err
}

// scramClient is a sarama.SCRAMClient for one conversation.
type scramClient struct {
	hash         scram.HashGeneratorFcn
	id           *identity
	conversation *scram.ClientConversation
}

// Begin begins with the password that the file has now.
func (c *scramClient) Begin(username, _, authorization string) error {
	client, err := c.hash.NewClient(username, c.id.password.Get(), authorization)
	if err != nil {
		return errNotPrepared // err has the password
	}
	c.conversation = client.NewConversation()
	return nil
}

func (c *scramClient) Step(challenge string) (string, error) { return c.conversation.Step(challenge) }

func (c *scramClient) Done() bool { return c.conversation.Done() }

// Kafka's requests for SASL, in versions that have no flexible fields.
const (
	saslHandshakeKey    = 17
	saslHandshakeV1     = 1
	saslAuthenticateKey = 36
	saslAuthenticateV0  = 0

	// mostAnswer limits the size of an answer, in bytes.
	mostAnswer = 64 << 10
)

// authenticatePlain authenticates a new connection with SASL/PLAIN (RFC 4616, and
// Kafka's SaslHandshake v1 and SaslAuthenticate v0). sarama takes one password for the
// life of a client.
func authenticatePlain(ctx context.Context, conn net.Conn, clientID, username, password string) error {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if err := exchange(conn, saslHandshakeKey, saslHandshakeV1, 1, clientID, appendString(nil, "PLAIN")); err != nil {
		return err
	}
	credentials := []byte("\x00" + username + "\x00" + password)
	body := append(binary.BigEndian.AppendUint32(nil, uint32(len(credentials))), credentials...)
	if err := exchange(conn, saslAuthenticateKey, saslAuthenticateV0, 2, clientID, body); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

func appendString(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}

var errAnswer = errors.New("the answer is not one of a Kafka broker; give the address of a listener with SASL in --brokers")

// exchange sends a request and reads the error code of the answer, which is its first
// field. The rest of the answer is not needed.
func exchange(conn net.Conn, key, version uint16, correlation uint32, clientID string, body []byte) error {
	request := binary.BigEndian.AppendUint16(make([]byte, 4), key)
	request = binary.BigEndian.AppendUint16(request, version)
	request = binary.BigEndian.AppendUint32(request, correlation)
	request = append(appendString(request, clientID), body...)
	binary.BigEndian.PutUint32(request, uint32(len(request)-4))
	if _, err := conn.Write(request); err != nil {
		return err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 6 || n > mostAnswer {
		return fmt.Errorf("%w: it has %d bytes", errAnswer, n)
	}
	answer := make([]byte, n)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	if !bytes.Equal(answer[:4], binary.BigEndian.AppendUint32(nil, correlation)) {
		return fmt.Errorf("%w: it belongs to another request", errAnswer)
	}
	if code := sarama.KError(int16(binary.BigEndian.Uint16(answer[4:6]))); code != sarama.ErrNoError {
		return code
	}
	return nil
}

// mechanisms are the names of the mechanisms in Kafka's requests.
var mechanisms = map[string]string{
	saslPlain: sarama.SASLTypePlaintext, scram256: sarama.SASLTypeSCRAMSHA256, scram512: sarama.SASLTypeSCRAMSHA512, saslBearer: sarama.SASLTypeOAuth,
}

// refusal returns why brokers do not let this client authenticate, or why they want it to
// authenticate, or nil. sarama's error says neither.
func (c Config) refusal(err error) error {
	closed := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
	lost := errors.Unwrap(err) == nil // sarama drops most answers of brokers
	if !errors.Is(err, sarama.ErrOutOfBrokers) || errors.Is(err, bus.ErrUntrusted) || !closed && !lost {
		return nil
	}
	d := c.dialer(c.client())
	for _, address := range c.Brokers {
		conn, err := d.Dial("tcp", address)
		if answer, answered := errors.AsType[sarama.KError](err); answered {
			return c.explain(address, answer)
		}
		if err != nil {
			continue // sarama has it, too
		}
		if c.Security.SASL == saslPlain { // Dial has authenticated
			_ = conn.Close()
			return nil
		}
		err = errors.Join(d.offer(conn, cmp.Or(mechanisms[c.Security.SASL], sarama.SASLTypePlaintext)), conn.Close())
		answer, answered := errors.AsType[sarama.KError](err)
		if answered || err == nil && !c.Security.authenticates() {
			return c.explain(address, answer)
		}
	}
	return nil
}

// offer offers a mechanism to a broker.
func (d *dialer) offer(conn net.Conn, mechanism string) error {
	if err := conn.SetDeadline(time.Now().Add(d.handshake)); err != nil {
		return err
	}
	return exchange(conn, saslHandshakeKey, saslHandshakeV1, 1, d.clientID, appendString(nil, mechanism))
}

// explain says what an answer to the offer of a mechanism means for the settings.
func (c Config) explain(address string, answer sarama.KError) error {
	has := answer != sarama.ErrIllegalSASLState // the listener has SASL
	switch wants := c.Security.authenticates(); {
	case wants && !has:
		return fmt.Errorf("%w: the listener at %s does not authenticate clients, and --bus-sasl is set; give the address of a listener with SASL in --brokers: %w", bus.ErrCredentials, address, answer)
	case wants && answer == sarama.ErrUnsupportedSASLMechanism:
		return fmt.Errorf("%w: the listener at %s does not have --bus-sasl %s: %w", bus.ErrCredentials, address, c.Security.SASL, answer)
	case wants:
		return refusedAccess(answer)
	case has:
		return fmt.Errorf("%w: the listener at %s wants clients to authenticate, and --bus-sasl is none", bus.ErrCredentials, address)
	}
	return nil
}

// refusals are answers of brokers that refuse access.
var refusals = map[sarama.KError]error{
	sarama.ErrSASLAuthenticationFailed:   bus.ErrCredentials,
	sarama.ErrUnsupportedSASLMechanism:   bus.ErrCredentials,
	sarama.ErrIllegalSASLState:           bus.ErrCredentials,
	sarama.ErrTopicAuthorizationFailed:   bus.ErrDenied,
	sarama.ErrGroupAuthorizationFailed:   bus.ErrDenied,
	sarama.ErrClusterAuthorizationFailed: bus.ErrDenied,
}

// refusedAccess adds bus.ErrCredentials or bus.ErrDenied to an answer of a broker that
// says so.
func refusedAccess(err error) error {
	if err == nil || errors.Is(err, bus.ErrCredentials) || errors.Is(err, bus.ErrDenied) {
		return err
	}
	for answer, refusal := range refusals {
		if errors.Is(err, answer) {
			return fmt.Errorf("%w: %w", refusal, err)
		}
	}
	return err
}
