package e2e

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/morphogenetic/oona/internal/localkafka"
	"github.com/morphogenetic/oona/internal/tlsfiles/authority"
)

// The Secrets of the user.
const (
	authoritySecret   = "oona-ca"
	certificateSecret = "oona-tls"    // of ingest and of the admin ports
	accessSecret      = "oona-access" // an access file, and a token that it lets in
	kafkaSecret       = "oona-kafka"  // a password
)

// The names that the certificate is for.
const (
	ingestHost   = release + "-ingest." + namespace + ".svc"
	exporterHost = release + "-exporter." + namespace + ".svc"
)

const (
	token         = "the-token-of-the-e2e-test"
	kafkaUser     = "oona"
	kafkaPassword = "the-password-of-the-e2e-test"
)

// access is an access file that lets the token do what the test does.
const access = `identities:
  - name: e2e
    tokens: [%x]
    runs: ["*"]
    producers: ["*"]
    roles: [frames, metrics]
`

// startKafka starts a broker whose listener for the pods has TLS and SCRAM.
func (w *world) startKafka(t *testing.T) (err error) {
	if w.authority, err = authority.New("authority of the e2e test", time.Hour); err != nil {
		return err
	}
	host := w.network.Host().String()
	certificate, err := w.authority.Issue(time.Hour, host)
	if err != nil {
		return err
	}
	w.kafka, err = localkafka.Start(t.Context(), localkafka.Options{
		Dir: filepath.Join(w.dir, "kafka"), Nodes: 1, Host: host,
		Secure: &localkafka.Secure{
			Listeners:  []localkafka.Listener{{Name: "scram", Certificate: certificate, SASL: true}},
			Users:      map[string]string{kafkaUser: kafkaPassword},
			SuperUsers: []string{kafkaUser}, // which ACLs suffice is tested with bus/kafka
		},
	})
	if err != nil {
		return err
	}
	t.Cleanup(func() { fail(t, w.kafka.Stop()) })
	return nil
}

// makeSecrets makes the Secrets that a user has before the chart is installed.
func (w *world) makeSecrets(ctx context.Context) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.authority.PEM)
	w.tls = &tls.Config{RootCAs: roots, ServerName: ingestHost}
	certificate, err := w.newCertificate()
	if err != nil {
		return err
	}
	errs := []error{w.makeSecret(ctx, certificate)}
	for name, data := range map[string]map[string]string{
		authoritySecret: {"ca.crt": string(w.authority.PEM)},
		accessSecret:    {"access.yaml": fmt.Sprintf(access, sha256.Sum256([]byte(token))), "token": token},
		kafkaSecret:     {"password": kafkaPassword},
	} {
		errs = append(errs, w.makeSecret(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data}))
	}
	return errors.Join(errs...)
}

func (w *world) makeSecret(ctx context.Context, secret *corev1.Secret) error {
	_, err := w.client.CoreV1().Secrets(w.namespace).Create(ctx, secret, metav1.CreateOptions{})
	return err
}

// newCertificate returns a Secret with a new certificate, which it notes.
func (w *world) newCertificate() (*corev1.Secret, error) {
	certificate, err := w.authority.Issue(time.Hour, ingestHost, exporterHost)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate.Cert, certificate.Key)
	if err != nil {
		return nil, err
	}
	w.serial = pair.Leaf.SerialNumber.String()
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: certificateSecret}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: certificate.Cert, corev1.TLSPrivateKeyKey: certificate.Key},
	}, nil
}

// authorized adds the token to requests.
type authorized struct{ http.RoundTripper }

func (a authorized) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", "Bearer "+token)
	return a.RoundTripper.RoundTrip(request)
}

// rotate replaces the certificate in the Secret, and waits until all ports show the new
// one. No container is started again.
func (w *world) rotate(ctx context.Context) error {
	before, err := w.uids(ctx)
	if err != nil {
		return err
	}
	secret, err := w.newCertificate()
	if err != nil {
		return err
	}
	if _, err := w.client.CoreV1().Secrets(w.namespace).Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		return err
	}
	if err := await(ctx, "the new certificate on all ports", w.showsCertificate); err != nil {
		return err
	}
	after, err := w.uids(ctx)
	if err == nil && !maps.Equal(before, after) {
		err = errors.New("pods were replaced")
	}
	return errors.Join(err, w.works(ctx, firstTag, firstTag, firstTag))
}

// showsCertificate checks the certificate of each admin port, and of ingest.
func (w *world) showsCertificate(ctx context.Context) error {
	var errs []error
	for component, port := range adminPorts {
		pods, err := w.pods(ctx, component)
		errs = append(errs, err)
		for i := range pods {
			errs = append(errs, w.shows(ctx, net.JoinHostPort(pods[i].Status.PodIP, port)))
		}
	}
	addresses, err := endpoints(ctx, w.client, w.namespace, release+"-ingest")
	errs = append(errs, err)
	for _, address := range addresses {
		errs = append(errs, w.shows(ctx, address))
	}
	return errors.Join(errs...)
}

func (w *world) shows(ctx context.Context, address string) error {
	dialer := tls.Dialer{Config: w.tls}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	shown := conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
	if shown != w.serial {
		err = fmt.Errorf("%s still shows the certificate %s", address, shown)
	}
	return errors.Join(err, conn.Close())
}

// uids returns the identities of the workers' pods, by name.
func (w *world) uids(ctx context.Context) (map[string]string, error) {
	uids := make(map[string]string)
	for _, component := range slices.Sorted(maps.Keys(adminPorts)) {
		pods, err := w.pods(ctx, component)
		if err != nil {
			return nil, err
		}
		for i := range pods {
			uids[pods[i].Name] = string(pods[i].UID)
		}
	}
	return uids, nil
}
