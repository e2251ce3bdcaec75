package localkafka

import (
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona/internal/tlsfiles/authority"
)

// Secure adds listeners with TLS to the plain one, and makes the brokers check access
// control lists (ACLs). Everybody on the plain listener is a super user. What changes in
// it takes effect when a node starts.
type Secure struct {
	Listeners []Listener
	// Users are the users of SASL and their passwords.
	Users map[string]string
	// SuperUsers are users that may do everything, without "User:".
	SuperUsers []string
	// Audit makes brokers log what they allow. They always log what they deny.
	Audit bool
}

// Listener is a listener with TLS.
type Listener struct {
	Name        string // lower-case letters
	Certificate authority.Certificate
	// SASL makes clients authenticate with PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or
	// OAUTHBEARER with unsecured tokens.
	SASL bool
	// Session is how long an authenticated client may stay connected without
	// authenticating again. 0: no limit.
	Session time.Duration
	// ClientCA has the authorities in PEM form of the certificates that clients must
	// have, if any. The user of a certificate is CN=... without further names.
	ClientCA []byte
}

const (
	securePlain  = "org.apache.kafka.common.security.plain.PlainLoginModule required"
	secureScram  = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
	secureBearer = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;"
)

// address returns the address of a listener on a node. index is that in Secure.Listeners.
func (n *node) secureAddress(index int) string {
	host, _, _ := net.SplitHostPort(n.address())
	return net.JoinHostPort(host, strconv.Itoa(n.SecurePorts[index]))
}

// SecureAddrs returns the addresses of a listener on all nodes.
func (c *Cluster) SecureAddrs(listener string) (addrs []string) {
	for i, l := range c.opts.Secure.Listeners {
		if l.Name != listener {
			continue
		}
		for _, n := range c.nodes {
			addrs = append(addrs, n.secureAddress(i))
		}
	}
	return addrs
}

func (n *node) listenerFile(l Listener, kind string) string {
	return filepath.Join(n.dir, l.Name+"-"+kind+".pem")
}

// checkSecure returns an error if the cluster cannot have the secure listeners of opts.
func (c *Cluster) checkSecure(opts Options) error {
	wanted := 0
	if opts.Secure != nil {
		wanted = len(opts.Secure.Listeners)
	}
	if opts.ProxyPort != 0 && wanted > 0 {
		return errors.New("localkafka: Options.ProxyPort and Options.Secure cannot be combined")
	}
	if has := len(c.nodes[0].SecurePorts); has != wanted {
		return fmt.Errorf("the cluster in %s has %d secure listeners, not %d; stop it and delete the directory", opts.Dir, has, wanted)
	}
	return nil
}

// secureProperties returns the listeners, in Kafka's form, the protocols of all, and the
// other properties.
func (c *Cluster) secureProperties(n *node) (listeners, protocols string, lines []string) {
	secure := c.opts.Secure
	if secure == nil {
		return "", "", nil
	}
	supers := []string{"super.users=User:ANONYMOUS"}
	for _, user := range secure.SuperUsers {
		supers = append(supers, "User:"+user)
	}
	lines = []string{
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		strings.Join(supers, ";"),
	}
	for i, l := range secure.Listeners {
		name, protocol := strings.ToUpper(l.Name), "SSL"
		prefix := "listener.name." + l.Name + "."
		lines = append(lines,
			prefix+"ssl.keystore.type=PEM",
			prefix+"ssl.keystore.location="+filepath.ToSlash(n.listenerFile(l, "key")),
		)
		if l.ClientCA != nil {
			lines = append(lines,
				prefix+"ssl.truststore.type=PEM",
				prefix+"ssl.truststore.location="+filepath.ToSlash(n.listenerFile(l, "ca")),
				prefix+"ssl.client.auth=required",
			)
		}
		if l.SASL {
			protocol = "SASL_SSL"
			lines = append(lines,
				prefix+"sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
				prefix+"plain.sasl.jaas.config="+secure.plainUsers(),
				prefix+"scram-sha-256.sasl.jaas.config="+secureScram,
				prefix+"scram-sha-512.sasl.jaas.config="+secureScram,
				prefix+"oauthbearer.sasl.jaas.config="+secureBearer,
			)
			for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512", "oauthbearer"} {
				if l.Session > 0 {
					lines = append(lines, fmt.Sprintf("%s%s.connections.max.reauth.ms=%d", prefix, mechanism, l.Session.Milliseconds()))
				}
			}
		}
		listeners += "," + name + "://" + n.secureAddress(i)
		protocols += "," + name + ":" + protocol
	}
	return listeners, protocols, lines
}

func (s *Secure) plainUsers() string {
	config := securePlain
	for _, name := range slices.Sorted(maps.Keys(s.Users)) {
		config += fmt.Sprintf(" user_%s=%q", name, s.Users[name])
	}
	return config + ";"
}

// writeSecure writes the certificates of a node.
func (c *Cluster) writeSecure(n *node) error {
	if c.opts.Secure == nil {
		return nil
	}
	for _, l := range c.opts.Secure.Listeners {
		pair := slices.Concat(l.Certificate.Key, l.Certificate.Cert)
		for kind, content := range map[string][]byte{"key": pair, "ca": l.ClientCA} {
			if err := os.WriteFile(n.listenerFile(l, kind), content, 0o600); err != nil {
				return fmt.Errorf("configure node %d: %w", n.ID, err)
			}
		}
	}
	return nil
}

// setUsers gives the users their passwords for SCRAM.
func (c *Cluster) setUsers(ctx context.Context) error {
	if c.opts.Secure == nil {
		return nil
	}
	for name, password := range c.opts.Secure.Users {
		if err := c.SetPassword(ctx, name, password); err != nil {
			return err
		}
	}
	return nil
}

// UnsecuredToken returns a token that a listener with SASL accepts until it expires.
func UnsecuredToken(user string, expires time.Time) string {
	claims := fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d}`, user, time.Now().Add(-time.Minute).Unix(), expires.Unix())
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none"}`)) + "." + encode([]byte(claims)) + "."
}

const scramIterations = 4096

// SetPassword sets a user's password for SCRAM, and in Secure for PLAIN, whose users
// change when the nodes are restarted.
func (c *Cluster) SetPassword(ctx context.Context, user, password string) error {
	c.opts.Secure.Users[user] = password
	for mechanism, hash := range map[int8]func() hash.Hash{1: sha256.New, 2: sha512.New} { // Kafka takes one of a user at a time
		salt := []byte(rand.Text())
		salted, err := pbkdf2.Key(hash, password, salt, scramIterations, hash().Size())
		if err != nil {
			return fmt.Errorf("salt the password of %s: %w", user, err)
		}
		up := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
		up.Name, up.Mechanism, up.Iterations, up.Salt, up.SaltedPassword = user, mechanism, scramIterations, salt, salted
		request := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
		request.Upsertions = append(request.Upsertions, up)
		err = c.administer(ctx, "set the password of "+user, func(client *kgo.Client) error {
			response, err := request.RequestWith(ctx, client)
			if err != nil {
				return err
			}
			return firstError(response.Results, func(r kmsg.AlterUserSCRAMCredentialsResponseResult) int16 { return r.ErrorCode })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// administer calls do with a client of the plain listener.
func (c *Cluster) administer(ctx context.Context, what string, do func(*kgo.Client) error) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...))
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := do(client); err != nil {
		return fmt.Errorf("%s: %w", what, errors.Join(err, ctx.Err()))
	}
	return nil
}

// firstError returns the first error of the results in a response.
func firstError[Result any](results []Result, code func(Result) int16) error {
	for _, result := range results {
		if err := kerr.ErrorForCode(code(result)); err != nil {
			return err
		}
	}
	return nil
}

// ACL allows a user something.
type ACL struct {
	User      string // without "User:"
	Operation string // such as read or describe-configs, as for kafka-acls.sh
	Resource  string // topic, group or cluster
	Name      string
	Prefixed  bool // for all resources whose names begin with Name
}

// Allow adds ACLs.
func (c *Cluster) Allow(ctx context.Context, acls ...ACL) error {
	request := kmsg.NewPtrCreateACLsRequest()
	for _, a := range acls {
		resource, operation, pattern, err := a.parse()
		if err != nil {
			return err
		}
		creation := kmsg.NewCreateACLsRequestCreation()
		creation.ResourceType, creation.ResourceName, creation.ResourcePatternType = resource, a.Name, pattern
		creation.Principal, creation.Host = "User:"+a.User, "*"
		creation.Operation, creation.PermissionType = operation, kmsg.ACLPermissionTypeAllow
		request.Creations = append(request.Creations, creation)
	}
	return c.administer(ctx, "add ACLs", func(client *kgo.Client) error {
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		return firstError(response.Results, func(r kmsg.CreateACLsResponseResult) int16 { return r.ErrorCode })
	})
}

// Forbid removes ACLs. It removes all of a user if only User is set.
func (c *Cluster) Forbid(ctx context.Context, acls ...ACL) error {
	request := kmsg.NewPtrDeleteACLsRequest()
	for _, a := range acls {
		filter := kmsg.NewDeleteACLsRequestFilter()
		principal := "User:" + a.User
		filter.Principal = &principal
		filter.ResourceType, filter.ResourcePatternType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny
		filter.Operation, filter.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
		if a != (ACL{User: a.User}) {
			var err error
			if filter.ResourceType, filter.Operation, filter.ResourcePatternType, err = a.parse(); err != nil {
				return err
			}
			filter.ResourceName = &a.Name
		}
		request.Filters = append(request.Filters, filter)
	}
	return c.administer(ctx, "remove ACLs", func(client *kgo.Client) error {
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		return firstError(response.Results, func(r kmsg.DeleteACLsResponseResult) int16 { return r.ErrorCode })
	})
}

func (a ACL) parse() (resource kmsg.ACLResourceType, operation kmsg.ACLOperation, pattern kmsg.ACLResourcePatternType, err error) {
	if resource, err = kmsg.ParseACLResourceType(a.Resource); err != nil {
		return resource, operation, pattern, fmt.Errorf("the resource of %+v: %w", a, err)
	}
	if operation, err = kmsg.ParseACLOperation(strings.ReplaceAll(a.Operation, "-", "_")); err != nil {
		return resource, operation, pattern, fmt.Errorf("the operation of %+v: %w", a, err)
	}
	pattern = kmsg.ACLResourcePatternTypeLiteral
	if a.Prefixed {
		pattern = kmsg.ACLResourcePatternTypePrefixed
	}
	return resource, operation, pattern, nil
}

// auditLogger is the part of log4j2's configuration that logs what is allowed.
const auditLogger = `<Logger name="kafka.authorizer.logger" level="DEBUG"/>`

func (c *Cluster) log4j() string {
	if c.opts.Secure == nil || !c.opts.Secure.Audit {
		return log4j2
	}
	return strings.Replace(log4j2, "<Loggers>", "<Loggers>"+auditLogger, 1)
}

// Log returns what a node has logged.
func (c *Cluster) Log(id int) ([]byte, error) {
	n, err := c.node(id)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(n.logFile())
	if err != nil {
		return nil, fmt.Errorf("read the log of node %d: %w", id, err)
	}
	return bytes.ToValidUTF8(text, nil), nil
}
