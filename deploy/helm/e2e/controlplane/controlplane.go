package controlplane

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Users of the control plane. Their tokens are their names.
const (
	Admin     = "admin"     // may do everything
	Installer = "installer" // has only the rights that it is given
)

// ControlPlane is a running API server with its controllers.
type ControlPlane struct {
	URL       string
	dir       string
	processes []*process
}

// controllers are those that a chart needs. There is no garbage collector of nodes or
// volumes, as the kubelet makes both.
var controllers = []string{
	"deployment-controller", "replicaset-controller", "statefulset-controller", "job-controller", "disruption-controller",
	"endpointslice-controller", "garbage-collector-controller", "namespace-controller", "serviceaccount-controller", "clusterrole-aggregation-controller", "root-ca-certificate-publisher-controller",
}

// Start starts the programs, with data and logs in dir. It returns when the API server and
// the controllers work.
func Start(ctx context.Context, dir string, programs Programs) (_ *ControlPlane, err error) {
	c := &ControlPlane{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	etcd, peer := "http://"+ports[0], "http://"+ports[1]
	if err := c.start("etcd", programs.Etcd, "--data-dir="+c.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd, "--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer); err != nil {
		return nil, err
	}
	if err := c.startAPIServer(ctx, programs.APIServer, etcd, ports[2]); err != nil {
		return nil, err
	}
	if err := c.startControllers(programs.ControllerManager, ports[3]); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *ControlPlane) path(name string) string { return filepath.Join(c.dir, name) }

func (c *ControlPlane) startAPIServer(ctx context.Context, program, etcd, address string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make a key for service accounts: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	tokens := Admin + "," + Admin + ",1,system:masters\n" + Installer + "," + Installer + ",2\n"
	if err := errors.Join(os.WriteFile(c.path("accounts.key"), text, 0o600), os.WriteFile(c.path("tokens.csv"), []byte(tokens), 0o600)); err != nil {
		return fmt.Errorf("configure the API server: %w", err)
	}
	_, port, _ := strings.Cut(address, ":")
	c.URL = "https://" + address
	err = c.start("kube-apiserver", program, "--etcd-servers="+etcd, "--bind-address=127.0.0.1", "--secure-port="+port, "--cert-dir="+c.path("certificates"),
		"--token-auth-file="+c.path("tokens.csv"), "--authorization-mode=RBAC", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24",
		"--service-account-issuer=https://oona.test", "--service-account-signing-key-file="+c.path("accounts.key"), "--service-account-key-file="+c.path("accounts.key"))
	if err != nil {
		return err
	}
	for {
		err := c.ready(ctx)
		if err == nil {
			return nil
		}
		if err := c.ended(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the API server: %w (%w); logs are in %s", ctx.Err(), err, c.dir)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ready asks the API server, which first makes its certificate.
func (c *ControlPlane) ready(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(c.Config(Admin))
	if err != nil {
		return fmt.Errorf("connect to the API server: %w", err)
	}
	_, err = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err
}

func (c *ControlPlane) startControllers(program, address string) error {
	kubeconfig := c.path("controllers.kubeconfig")
	if err := c.WriteKubeconfig(kubeconfig, Admin); err != nil {
		return err
	}
	_, port, _ := strings.Cut(address, ":")
	return c.start("kube-controller-manager", program, "--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port="+port, "--cert-dir="+c.path("certificates"), "--root-ca-file="+c.path("certificates/apiserver.crt"),
		"--controllers="+strings.Join(controllers, ","))
}

// Config returns how a user connects.
func (c *ControlPlane) Config(user string) *rest.Config {
	return &rest.Config{Host: c.URL, BearerToken: user, TLSClientConfig: rest.TLSClientConfig{CAFile: c.path("certificates/apiserver.crt")}, QPS: -1}
}

// WriteKubeconfig writes a kubeconfig of a user.
func (c *ControlPlane) WriteKubeconfig(path, user string) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["e2e"] = &clientcmdapi.Cluster{Server: c.URL, CertificateAuthority: c.path("certificates/apiserver.crt")}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: user}
	config.Contexts["e2e"] = &clientcmdapi.Context{Cluster: "e2e", AuthInfo: user}
	config.CurrentContext = "e2e"
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("write the kubeconfig of %s: %w", user, err)
	}
	return nil
}

// Stop stops the programs, the last one first.
func (c *ControlPlane) Stop() error {
	var errs []error
	for i := len(c.processes) - 1; i >= 0; i-- {
		errs = append(errs, c.processes[i].stop())
	}
	c.processes = nil
	return errors.Join(errs...)
}

// freePorts returns addresses on loopback that were free just now.
func freePorts(count int) (addresses []string, err error) {
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer listener.Close() //nolint:gocritic // all stay open until the last is found
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses, nil
}
