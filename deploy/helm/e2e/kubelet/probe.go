package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probe asks for a container's state in intervals. It calls report with each result that
// enough answers agree on, until ctx ends.
func (c *container) probe(ctx context.Context, spec *corev1.Probe, report func(success bool)) {
	if !pause(ctx, time.Duration(spec.InitialDelaySeconds)*time.Second) {
		return
	}
	ticker := time.NewTicker(time.Duration(max(spec.PeriodSeconds, 1)) * time.Second)
	defer ticker.Stop()
	successes, failures := int32(0), int32(0)
	for {
		err := c.ask(ctx, spec)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			successes, failures = successes+1, 0
		} else {
			successes, failures = 0, failures+1
			c.pod.kubelet.Logger.Debug("probe failed", "pod", c.pod.is.Name, "container", c.spec.Name, "failures", failures, "err", err)
		}
		if successes >= max(spec.SuccessThreshold, 1) {
			report(true)
		} else if failures >= max(spec.FailureThreshold, 1) {
			report(false)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// ask makes one attempt.
func (c *container) ask(ctx context.Context, spec *corev1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(spec.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	switch {
	case spec.HTTPGet != nil:
		return c.get(ctx, spec.HTTPGet)
	case spec.Exec != nil:
		return c.execute(ctx, spec.Exec.Command)
	case spec.TCPSocket != nil:
		return c.dial(ctx, spec.TCPSocket.Port)
	}
	return errors.New("this kind of probe is not supported")
}

// get asks over HTTP. Like a kubelet, it does not verify certificates.
func (c *container) get(ctx context.Context, get *corev1.HTTPGetAction) error {
	port, err := c.port(get.Port)
	if err != nil {
		return err
	}
	host := get.Host
	if host == "" {
		host = c.pod.address.String()
	}
	scheme := "http"
	if get.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	address := scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port)) + "/" + strings.TrimPrefix(get.Path, "/")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	for _, header := range get.HTTPHeaders {
		request.Header.Add(header.Name, header.Value)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a kubelet does not verify either
	}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	if err := response.Body.Close(); err != nil {
		return err
	}
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", response.StatusCode)
	}
	return nil
}

func (c *container) port(port intstr.IntOrString) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	for _, named := range c.spec.Ports {
		if named.Name == port.StrVal {
			return int(named.ContainerPort), nil
		}
	}
	return 0, fmt.Errorf("container %s has no port %s", c.spec.Name, port.StrVal)
}

// execute runs a command in the container.
func (c *container) execute(ctx context.Context, args []string) error {
	process, s := c.running()
	if process == nil {
		return errors.New("the container does not run")
	}
	enter := []string{"--target", strconv.Itoa(process.cmd.Process.Pid), "--mount", "--net", "--pid", "--root",
		"--setuid", strconv.Itoa(s.UID), "--setgid", strconv.Itoa(s.GID), "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	for name, value := range s.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", args[0], err, strings.TrimSpace(string(output)))
	}
	return nil
}

func (c *container) dial(ctx context.Context, named intstr.IntOrString) error {
	port, err := c.port(named)
	if err != nil {
		return err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(c.pod.address.String(), strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return conn.Close()
}

// pause returns false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
