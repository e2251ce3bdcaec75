package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/pipeline/export"
)

// statusCommand asks an exporter what became of the frames of a run.
type statusCommand struct {
	OfRun    oona.RunID    `arg:"" name:"run" help:"Run to ask for."`
	Exporter string        `env:"-" required:"" placeholder:"URL" help:"URL of the exporter's admin port, for example http://oona-exporter:9103."`
	Timeout  time.Duration `env:"-" default:"20s" help:"Maximum time for the answer. The exporter reads the side topics for up to 5s."`
	JSON     bool          `name:"json" env:"-" help:"Print the answer as JSON."`

	TokenFile string               `env:"-" placeholder:"FILE" help:"File with the bearer token to send to the exporter."`
	TLS       tlsfiles.ClientFlags `embed:"" prefix:"tls-" group:"TLS"`
}

// Validate is called by kong when flags, environment and file have been read.
func (c *statusCommand) Validate() error {
	if err := oona.CheckID("run", string(c.OfRun)); err != nil {
		return err
	}
	if err := checkURL("--exporter", c.Exporter); err != nil {
		return err
	}
	if c.Timeout <= 0 {
		return &oona.FieldError{Field: "--timeout", Reason: fmt.Sprintf("is %s; give more than 0", c.Timeout)}
	}
	return c.TLS.Validate(smokeTLSFlags)
}

// warnings returns what is probably not meant in the settings.
func (c *statusCommand) warnings() []*oona.FieldError {
	return append(c.TLS.Warnings(smokeTLSFlags), clearToken("--exporter", c.Exporter, c.TokenFile)...)
}

// mostStatus is the greatest size of an answer. That of 4,096 layers has some 4 MB.
const mostStatus = 64 << 20

var (
	// errUnknownRun is returned for a run of which the exporter knows nothing.
	errUnknownRun = errors.New("the exporter does not know the run")
	errNoStatus   = errors.New("this is not an answer of an exporter; give the URL of its admin port, which is 9103 by default")
)

func (c *statusCommand) Run(ctx context.Context, to streams, logger *slog.Logger) error {
	client, err := newClient(c.TLS, c.TokenFile, logger)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var answer []byte
	for { // a busy exporter answers a second later
		answer, err = c.ask(ctx, client)
		if status, ok := errors.AsType[statusError](err); !ok || !status.passing() || !bus.Pause(ctx, time.Second) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("ask %s for run %s: %w", c.Exporter, c.OfRun, err)
	}
	_, err = to.out.Write(answer)
	return err
}

// ask returns the exporter's answer.
func (c *statusCommand) ask(ctx context.Context, client *http.Client) ([]byte, error) {
	at := strings.TrimSuffix(c.Exporter, "/") + export.StatusPath + "?run=" + url.QueryEscape(string(c.OfRun))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	accept := "text/plain"
	if c.JSON {
		accept = "application/json"
	}
	request.Header.Set("Accept", accept)
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	media, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";")
	if media == "application/problem+json" {
		return nil, statusRefused(response)
	}
	if response.StatusCode != http.StatusOK {
		return nil, refused(response)
	}
	if media != accept {
		return nil, errNoStatus
	}
	return io.ReadAll(io.LimitReader(response.Body, mostStatus))
}

// statusRefused returns the error for a refusal of the exporter.
func statusRefused(response *http.Response) error {
	var why struct {
		Detail string
		Runs   []oona.RunID
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, mostStatus)).Decode(&why); err != nil {
		return statusError{status: response.StatusCode, remedy: remedyOf(response)}
	}
	says := printable(why.Detail)
	if len(why.Runs) > 0 {
		says += "; it knows " + listed(why.Runs)
	}
	err := error(statusError{response.StatusCode, says, remedyOf(response)})
	if response.StatusCode == http.StatusNotFound {
		err = fmt.Errorf("%w: %w", errUnknownRun, err)
	}
	return err
}

// mostNames is how many runs an error lists.
const mostNames = 20

// listed lists runs for an error.
func listed(runs []oona.RunID) string {
	var all []string
	for _, run := range runs[:min(len(runs), mostNames)] {
		all = append(all, printable(string(run)))
	}
	if more := len(runs) - len(all); more > 0 {
		all = append(all, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(all, ", ")
}
