package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/buswatch"
	"github.com/morphogenetic/oona/internal/secret"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/export"
	"github.com/morphogenetic/oona/pipeline/remotewrite"
)

// remoteWriteFlags say where to send rollups, besides showing them.
type remoteWriteFlags struct {
	URL          string               `name:"remote-write-url" placeholder:"URL" help:"Send each rollup to this remote-write receiver, such as https://prometheus.example:9090/api/v1/write, with the end of its window as its time. Default: rollups are not sent."`
	Username     string               `name:"remote-write-username" placeholder:"NAME" help:"User name for the receiver (HTTP basic authentication)."`
	PasswordFile string               `name:"remote-write-password-file" placeholder:"FILE" help:"File with the password of --remote-write-username. Changes are read without a restart."`
	TokenFile    string               `name:"remote-write-token-file" placeholder:"FILE" help:"File with the token for the receiver (HTTP bearer authentication). Changes are read without a restart."`
	TLS          tlsfiles.ClientFlags `embed:"" prefix:"remote-write-"`
	Group        string               `name:"remote-write-group" placeholder:"NAME" help:"Consumer group of the rollup topics. Its members share the partitions, so that each rollup is sent once."`
	Instance     string               `name:"remote-write-group-instance" placeholder:"ID" help:"Group instance ID for static membership, as --group-instance of the aggregator. It must be unique in the group. Default: dynamic membership."`
}

// validate returns an *oona.FieldError for the first setting that is wrong. It reads the
// files.
func (f *remoteWriteFlags) validate() error {
	if f.URL == "" {
		for flag, value := range map[string]string{
			"--remote-write-username": f.Username, "--remote-write-password-file": f.PasswordFile, "--remote-write-token-file": f.TokenFile,
			"--remote-write-ca-file": f.TLS.CAFile, "--remote-write-cert-file": f.TLS.CertFile, "--remote-write-group-instance": f.Instance,
		} {
			if value != "" {
				return &oona.FieldError{Field: "--remote-write-url", Reason: "is empty, and " + flag + " is given; give the URL, or neither"}
			}
		}
		return nil
	}
	if err := worker.AsFlag("--remote-write-url", remotewrite.CheckURL(f.URL)); err != nil {
		return err
	}
	switch {
	case f.TokenFile != "" && f.Username != "":
		return &oona.FieldError{Field: "--remote-write-token-file", Reason: "is given with --remote-write-username; give one of them"}
	case (f.Username == "") != (f.PasswordFile == ""):
		return &oona.FieldError{Field: "--remote-write-password-file", Reason: "and --remote-write-username go together; give both or neither"}
	case strings.Contains(f.Username, ":"):
		return &oona.FieldError{Field: "--remote-write-username", Reason: "has a colon, which ends the name in HTTP basic authentication"}
	case f.TLS.Given() && !f.secure():
		return &oona.FieldError{Field: "--remote-write-url", Reason: "begins with http:, and settings of TLS are given; give a URL that begins with https:"}
	}
	for _, g := range []oona.Group{oona.Health, oona.Performance} {
		if err := f.member(g).Validate(); err != nil {
			if f.Group == "" {
				return worker.AsFlag("--remote-write-group", err)
			}
			return worker.AsFlag("--remote-write-group-instance", err)
		}
	}
	if _, err := f.authorization(nil); err != nil {
		return err
	}
	_, err := f.transport(nil)
	return err
}

func (f *remoteWriteFlags) secure() bool {
	u, err := url.Parse(f.URL)
	return err == nil && u.Scheme == "https"
}

// How much of a partition, and of all partitions of a topic, is fetched before it is needed:
// rollups are large and sent in small batches.
const (
	remoteWriteReadAhead    = 1 << 20
	remoteWriteReadAheadAll = 32 << 20
)

// member returns how the member for a group of rollups joins the consumer group. A member
// reads one topic, and each has its own instance.
func (f *remoteWriteFlags) member(g oona.Group) bus.MemberOptions {
	o := bus.MemberOptions{Group: f.Group, Instance: f.Instance, ReadAhead: remoteWriteReadAhead, ReadAheadAll: remoteWriteReadAheadAll}
	if o.Instance != "" {
		o.Instance += "-" + g.String()
	}
	return o
}

// authorization returns a function with the value of the header Authorization, or nil if
// the receiver needs none.
func (f *remoteWriteFlags) authorization(files *secret.Files) (func() string, error) {
	switch {
	case f.TokenFile != "":
		token, err := secret.Open(files, "--remote-write-token-file", []string{f.TokenFile}, secret.Text)
		if err != nil {
			return nil, err
		}
		return func() string { return "Bearer " + token.Get() }, nil
	case f.PasswordFile != "":
		password, err := secret.Open(files, "--remote-write-password-file", []string{f.PasswordFile}, secret.Text)
		if err != nil {
			return nil, err
		}
		return func() string {
			return "Basic " + base64.StdEncoding.EncodeToString([]byte(f.Username+":"+password.Get()))
		}, nil
	}
	return nil, nil
}

// transport returns the transport of requests. Each new connection uses what the files of
// certificates contain then, unless it is through a proxy.
func (f *remoteWriteFlags) transport(files *secret.Files) (http.RoundTripper, error) {
	client, err := tlsfiles.OpenClient(files, "remote-write-", f.TLS)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = client.Config("") // for a connection through a proxy
	transport.MaxIdleConnsPerHost = remotewrite.MaxRequests
	transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return (&tls.Dialer{Config: client.Config(host)}).DialContext(ctx, network, address)
	}
	return transport, nil
}

// remoteWrite returns the components that send rollups, or none without a URL.
func (c *config) remoteWrite(ctx context.Context, b bus.Bus, shown export.Config, w *worker.Worker) ([]worker.Component, error) {
	f := &c.RemoteWrite
	if f.URL == "" {
		return nil, nil
	}
	topics := []string{shown.Topics.LayerHealth, shown.Topics.LayerPerformance}
	others := buswatch.Group{Bus: b, Flag: "--remote-write-group", Name: f.Group, Topics: topics, Logger: w.Logger}
	if err := others.Start(ctx); err != nil {
		return nil, err
	}
	authorization, err := f.authorization(w.Secrets)
	if err != nil {
		return nil, err
	}
	if authorization != nil && !f.secure() {
		w.Logger.Warn("the password or token for the remote-write receiver is sent in clear text, as its URL begins with http:", "setting", "--remote-write-url")
	}
	transport, err := f.transport(w.Secrets)
	if err != nil {
		return nil, err
	}
	stage, err := remotewrite.New(remotewrite.Config{
		Topics: shown.Topics, Prefix: c.Prefix, URL: f.URL, Transport: transport, Authorization: authorization,
		MaxRuns: shown.MaxRuns, MaxLayers: shown.MaxLayers, MaxTotalLayers: shown.MaxTotalLayers, MaxMetrics: shown.MaxMetrics,
		WorstSeeds: shown.WorstSeeds, SilentAfter: shown.SilentAfter,
	}, w.Registry, w.Logger)
	if err != nil {
		return nil, err
	}
	var members [2]bus.Member
	for g := range members {
		if members[g], err = b.Member(f.member(oona.Group(g)), stage); err != nil {
			return nil, err
		}
		w.OnClose("consumer group of remote write, "+oona.Group(g).String(), members[g].Close)
	}
	w.Admin.Note("remote write", stage.Note)
	return []worker.Component{
		{Name: "remote write", Run: func(ctx context.Context) error { return stage.Run(ctx, members) }},
		{Name: "remote write group watch", Run: others.Run},
	}, nil
}
