package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/secret"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/schemas/avro"
	"github.com/morphogenetic/oona/windows"
)

const (
	smokeLayer  = "oona-smoke"
	smokeMetric = "reconstruction_loss"
	smokeSeries = "kasmina_layer_health_window_mean"
	smokeMean   = 2.5 // of the values that are sent

	smokePause    = 250 * time.Millisecond // between two attempts
	smokeRequest  = 5 * time.Second        // most time for one attempt
	scrapeBytes   = 256 << 20
	refusalBytes  = 1 << 10
	smokeTLSFlags = "tls-"
)

// errNoRollup is returned if the frames were accepted and their rollup does not come.
var errNoRollup = errors.New("ingest has accepted the frames, but the exporter does not show their rollup")

// smokeCommand sends frames through an installation and waits for their rollup.
type smokeCommand struct {
	Ingest   string        `env:"-" required:"" placeholder:"URL" help:"URL of ingest, for example http://oona-ingest:8080."`
	Exporter string        `env:"-" required:"" placeholder:"URL" help:"URL of the exporter's admin port, for example http://oona-exporter:9103."`
	Timeout  time.Duration `env:"-" default:"20s" help:"Maximum time until the exporter shows the rollup."`

	TokenFile string               `env:"-" placeholder:"FILE" help:"File with the bearer token to send to ingest and the exporter."`
	TLS       tlsfiles.ClientFlags `embed:"" prefix:"tls-" group:"TLS"`

	// The settings of windows.Config that say when a window closes.
	Length          time.Duration `name:"window-length" group:"Windows" help:"Length of a window of event time."`
	OutOfOrderness  time.Duration `name:"out-of-orderness" group:"Windows" help:"How far the frames of one producer may be out of order."`
	AllowedLateness time.Duration `name:"allowed-lateness" group:"Windows" help:"How long a window stays open after the watermark has passed its end."`
}

func defaultSmoke() smokeCommand {
	w := windows.DefaultConfig()
	return smokeCommand{Length: w.Length, OutOfOrderness: w.OutOfOrderness, AllowedLateness: w.AllowedLateness}
}

// Validate is called by kong when flags, environment and file have been read.
func (s *smokeCommand) Validate() error {
	for flag, text := range map[string]string{"--ingest": s.Ingest, "--exporter": s.Exporter} {
		if err := checkURL(flag, text); err != nil {
			return err
		}
	}
	cfg := windows.DefaultConfig()
	cfg.Length, cfg.OutOfOrderness, cfg.AllowedLateness = s.Length, s.OutOfOrderness, s.AllowedLateness
	if err := worker.NameFlag(cfg, cfg.Validate()); err != nil {
		return err
	}
	return s.TLS.Validate(smokeTLSFlags)
}

// checkURL checks the URL of a worker.
func checkURL(flag, text string) error {
	if strings.Contains(text, "@") { // not quoted, as it may have a password
		return &oona.FieldError{Field: flag, Reason: "has an @; give a URL without a user and a password, such as http://host:8080, and a token with --token-file"}
	}
	if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return &oona.FieldError{Field: flag, Reason: fmt.Sprintf("is %q; give a URL such as http://host:8080", text)}
	}
	return nil
}

// warnings returns what is probably not meant in the settings.
func (s *smokeCommand) warnings() []*oona.FieldError {
	warnings := s.TLS.Warnings(smokeTLSFlags)
	for flag, text := range map[string]string{"--ingest": s.Ingest, "--exporter": s.Exporter} {
		warnings = append(warnings, clearToken(flag, text, s.TokenFile)...)
	}
	return warnings
}

// clearToken warns of a token that is sent to a URL in clear text.
func clearToken(flag, text, tokenFile string) []*oona.FieldError {
	if u, err := url.Parse(text); err != nil || u.Scheme != "http" || tokenFile == "" {
		return nil
	}
	return []*oona.FieldError{{Field: flag, Reason: "is http://, so the token is sent in clear text; give https:// if the port has TLS"}}
}

func (s *smokeCommand) Run(ctx context.Context, to streams, logger *slog.Logger) error {
	client, err := newClient(s.TLS, s.TokenFile, logger)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()

	run := oona.RunID("oona-smoke-" + began.UTC().Format("20060102T150405.000"))
	body, err := s.frames(run, began)
	if err != nil {
		return err
	}
	if err := again(ctx, func(ctx context.Context) error { return s.post(ctx, client, body) }); err != nil {
		return fmt.Errorf("sending frames to %s: %w", s.Ingest, err)
	}
	fmt.Fprintf(to.out, "ingest has accepted two frames of run %s after %s\n", run, since(began))
	var mean float64
	err = again(ctx, func(ctx context.Context) (err error) {
		mean, err = s.read(ctx, client, run)
		return err
	})
	if err != nil {
		return fmt.Errorf("reading the rollup from %s: %w", s.Exporter, err)
	}
	if mean != smokeMean {
		return fmt.Errorf("the exporter shows a mean of %g; the frames have %g", mean, smokeMean)
	}
	fmt.Fprintf(to.out, "the exporter shows their rollup after %s\n", since(began))
	return nil
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }

// newClient returns a client with the TLS configuration and the token of the flags.
func newClient(flags tlsfiles.ClientFlags, tokenFile string, logger *slog.Logger) (*http.Client, error) {
	certificates, err := tlsfiles.OpenClient(secret.NewFiles(logger), smokeTLSFlags, flags)
	if err != nil {
		return nil, err
	}
	// Without a host, the transport fills in that of each URL.
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: certificates.Config(""), DisableKeepAlives: true}
	client := &http.Client{Transport: transport, CheckRedirect: noRedirect}
	if tokenFile == "" {
		return client, nil
	}
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return nil, &oona.FieldError{Field: "--token-file", Reason: err.Error()}
	}
	client.Transport = bearer{transport, strings.TrimSpace(string(token))}
	return client, nil
}

// noRedirect makes a redirect an answer like any other, so that the token and the frames
// go to no host that the flags do not name.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// bearer adds a token to each request.
type bearer struct {
	next  http.RoundTripper
	token string
}

func (b bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(request)
}

// frames returns two frames, both of the past. The first is in a window. The second is as
// late as the watermark needs to close this window, so nothing has to be waited for.
func (s *smokeCommand) frames(run oona.RunID, now time.Time) ([]byte, error) {
	closes := s.OutOfOrderness + s.AllowedLateness
	end := now.Add(-closes - time.Second).Truncate(s.Length)
	var body []byte
	for i, at := range []time.Time{end.Add(-s.Length / 2), end.Add(closes)} {
		f := &oona.Frame{
			Run: run, Layer: smokeLayer, Producer: smokeLayer, Epoch: oona.Micros(now.UnixMicro()),
			Sequence: int64(i), Step: int64(i), ObservedAt: oona.Micros(at.UnixMicro()),
			Seeds:   []oona.SeedID{0, 1, 2, 3},
			States:  []oona.State{oona.Training, oona.Training, oona.Training, oona.Training},
			Metrics: []oona.Column{{Name: smokeMetric, Values: []float32{1, 2, 3, 4}}},
		}
		if err := f.Validate(oona.DefaultFrameLimits); err != nil {
			return nil, err
		}
		body = avro.AppendFrame(body, f)
	}
	return body, nil
}

// again calls try until it succeeds, fails for good, or ctx is done. Then it returns the
// error of the last attempt that was not cut off by ctx, if there is one: it says more.
func again(ctx context.Context, try func(context.Context) error) error {
	var last error
	for {
		attempt, cancel := context.WithTimeout(ctx, smokeRequest)
		err := try(attempt)
		cancel()
		if err != nil && ctx.Err() != nil && last != nil {
			return last
		}
		last = err
		if status, ok := errors.AsType[statusError](err); err == nil || ok && !status.passing() {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(smokePause):
		}
	}
}

// statusError is an answer other than success.
type statusError struct {
	status int
	answer string
	remedy string // what to do; empty: the answer says it
}

func (e statusError) Error() string {
	text := fmt.Sprintf("%d %s", e.status, http.StatusText(e.status))
	for _, more := range []string{e.answer, e.remedy} {
		if more != "" {
			text += ": " + more
		}
	}
	return text
}

// passing reports whether the same request may succeed later.
func (e statusError) passing() bool {
	return e.status >= 500 || e.status == http.StatusTooManyRequests || e.status == http.StatusRequestTimeout
}

// post sends the frames. If it is called again, the same frames are folded once.
func (s *smokeCommand) post(ctx context.Context, client *http.Client, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(s.Ingest, "/")+"/v1/frames", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/avro")
	request.Header.Set("Oona-Sent-At", strconv.FormatInt(time.Now().UnixMicro(), 10))
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return refused(response)
	}
	return nil
}

func refused(response *http.Response) error {
	answer, _ := io.ReadAll(io.LimitReader(response.Body, refusalBytes)) // what is there says enough
	return statusError{response.StatusCode, printable(strings.TrimSpace(string(answer))), remedyOf(response)}
}

// What to do if a worker does not know who asks, or does not allow it.
const (
	giveToken  = "the port answers only those whom it knows; give a token in a file with --token-file, or a certificate with --tls-cert-file"
	otherToken = "the token of --token-file is not one that the port knows; ask the operator for another"
	mayNot     = "what a client may do is in the access file of the worker; give the --token-file of one that may do this"
)

// remedyOf returns what to do about an answer that is about who asks, or "".
func remedyOf(response *http.Response) string {
	switch {
	case response.StatusCode == http.StatusForbidden:
		return mayNot
	case response.StatusCode != http.StatusUnauthorized:
		return ""
	case response.Request.Header.Get("Authorization") != "":
		return otherToken
	}
	return giveToken
}

// read returns the mean of the run's first window from the exporter's metrics.
func (s *smokeCommand) read(ctx context.Context, client *http.Client, run oona.RunID) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(s.Exporter, "/")+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, refused(response)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(response.Body, scrapeBytes))
	if err != nil {
		return 0, fmt.Errorf("its metrics: %w", err)
	}
	for _, m := range families[smokeSeries].GetMetric() {
		labels := map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if labels["run"] == string(run) && labels["layer"] == smokeLayer && labels["metric"] == smokeMetric {
			return m.GetGauge().GetValue(), nil
		}
	}
	return 0, fmt.Errorf("%w; look at the logs of the aggregators and the exporter, and compare --window-length, --out-of-orderness and --allowed-lateness with `oona windows show`", errNoRollup)
}
