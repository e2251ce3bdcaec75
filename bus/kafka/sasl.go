package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"

	"github.com/morphogenetic/oona/bus"
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
		return fmt.Errorf("%s or %s has characters that SCRAM does not allow: %w", usernameFlag, passwordFlag, err)
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

var errAnswer = errors.New("the answer is not one of Kafka; is the address that of a listener with SASL?")

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

// refusedAccess adds bus.ErrCredentials or bus.ErrDenied to an answer of a broker that
// says so.
func refusedAccess(err error) error {
	answer, answered := errors.AsType[sarama.KError](err)
	if !answered || errors.Is(err, bus.ErrCredentials) || errors.Is(err, bus.ErrDenied) {
		return err
	}
	switch answer {
	case sarama.ErrSASLAuthenticationFailed, sarama.ErrUnsupportedSASLMechanism, sarama.ErrIllegalSASLState:
		return fmt.Errorf("%w: %w", bus.ErrCredentials, err)
	case sarama.ErrTopicAuthorizationFailed, sarama.ErrGroupAuthorizationFailed, sarama.ErrClusterAuthorizationFailed:
		return fmt.Errorf("%w: %w", bus.ErrDenied, err)
	}
	return err
}
