package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/morphogenetic/oona/internal/tlsfiles/tlstest"
)

// The Secrets of the user, and the names that the certificate is for.
const (
	certificateSecret = "oona-tls"
	authoritySecret   = "oona-ca"
	ingestHost        = release + "-ingest." + namespace + ".svc"
	exporterHost      = release + "-exporter." + namespace + ".svc"
)

// makeCertificates makes an authority, and Secrets with it and with a certificate for
// ingest and for the admin ports.
func (w *world) makeCertificates(t *testing.T) error {
	w.authority = tlstest.NewAuthority(t, "authority of the e2e test")
	ca, err := os.ReadFile(w.authority.File)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	w.tls = &tls.Config{RootCAs: roots, ServerName: ingestHost}
	_, err = w.client.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: authoritySecret}, Data: map[string][]byte{"ca.crt": ca},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	secret, err := w.newCertificate()
	if err != nil {
		return err
	}
	_, err = w.client.CoreV1().Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{})
	return err
}

// newCertificate returns a Secret with a new certificate, and notes its serial number.
func (w *world) newCertificate() (*corev1.Secret, error) {
	files := w.authority.Issue(time.Hour, ingestHost, exporterHost)
	pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		return nil, err
	}
	w.serial = pair.Leaf.SerialNumber.String()
	certificate, err := os.ReadFile(files.CertFile)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(files.KeyFile)
	if err != nil {
		return nil, err
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: certificateSecret}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key},
	}, nil
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
	if _, err := w.client.CoreV1().Secrets(namespace).Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
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
	addresses, err := endpoints(ctx, w.client, release+"-ingest")
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
