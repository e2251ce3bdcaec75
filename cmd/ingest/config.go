package main

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/internal/access"
	"github.com/morphogenetic/oona/internal/address"
	"github.com/morphogenetic/oona/internal/secret"
	"github.com/morphogenetic/oona/internal/size"
	"github.com/morphogenetic/oona/internal/tlsfiles"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/ingest"
	"github.com/morphogenetic/oona/schemas/registry"
)

// config is the configuration of ingest.
type config struct {
	worker.Config

	Listen    string               `group:"Frames" placeholder:"ADDRESS" help:"Address on which to accept frames over HTTP; port 0 picks a free port."`
	ListenTLS tlsfiles.ServerFlags `embed:"" prefix:"listen-" group:"Frames"`
	Access    string               `name:"listen-access-file" group:"Frames" placeholder:"FILE" help:"YAML file of the identities that may send frames and tensors, with their tokens or certificates, runs, producers and roles. Changes are read without a restart. Default: everyone, or with --listen-client-ca-file each client with a certificate."`
	Ingest    ingest.Config        `embed:"" group:"Frames"`

	Tensors claimcheck.Config `embed:"" group:"Tensors"`

	Raw      bool   `group:"Raw topic" help:"Also read frames from the raw topic, to which trainers publish with a Kafka client. The topic must exist (oona topics apply)."`
	RawGroup string `name:"raw-group" group:"Raw topic" placeholder:"NAME" help:"Consumer group of the raw topic. Its members share the partitions."`

	Registry registry.Config `embed:"" group:"Schema registry"`

	Bus         kafka.Config `embed:"" group:"Bus"`
	Compression string       `group:"Bus" default:"lz4" enum:"lz4,none" help:"Compression of records: lz4 or none."`
}

func defaults() *config {
	return &config{
		Config:   worker.Config{AdminAddress: "127.0.0.1:9101"},
		Listen:   "127.0.0.1:8080",
		Ingest:   ingest.DefaultConfig(),
		Tensors:  claimcheck.DefaultConfig(),
		RawGroup: "oona-ingest",
	}
}

// Validate is called by kong when flags, environment and file have been read.
func (c *config) Validate() error {
	if err := c.Bus.Security.Check(); err != nil {
		return err
	}
	if err := c.Ingest.Validate(); err != nil {
		return err
	}
	if err := worker.CheckAddresses(worker.Listener{Flag: "--listen", Address: c.Listen}, worker.Listener{Flag: "--admin-address", Address: c.AdminAddress}); err != nil {
		return err
	}
	if _, err := c.openListenTLS(nil); err != nil {
		return err
	}
	if _, err := c.openListenAccess(nil); err != nil {
		return err
	}
	if least := c.Ingest.PublishTimeout + ingest.Grace; c.DrainTimeout < least {
		return &oona.FieldError{Field: "--drain-timeout", Reason: fmt.Sprintf("is %s, too short for requests in progress; give at least %s, or a shorter --publish-timeout", c.DrainTimeout, least)}
	}
	if err := c.validateTensors(); err != nil {
		return err
	}
	if err := c.Registry.Validate(); err != nil {
		return err
	}
	topics, err := oona.NewTopics(c.Prefix)
	if err != nil {
		return worker.AsFlag("--prefix", err)
	}
	if err := worker.AsFlag("--max-message-bytes", c.publisher(topics).Validate()); err != nil {
		return err
	}
	return worker.AsFlag("--raw-group", c.rawGroup().Validate())
}

// Warnings adds to those of all workers what is said of the connections to the bus and of
// the address for frames.
func (c *config) Warnings() []*oona.FieldError {
	warnings := slices.Concat(c.Config.Warnings(), c.Bus.Security.Warnings(), c.ListenTLS.Warnings("listen-"), c.Registry.Warnings())
	switch {
	case c.Access != "" && c.ListenTLS.CertFile == "":
		warnings = append(warnings, worker.ClearText("--listen-access-file"))
	case c.Access == "" && c.ListenTLS.ClientCAFile == "" && !address.OnlyHere(c.Listen):
		warnings = append(warnings, &oona.FieldError{Field: "--listen", Reason: fmt.Sprintf("is %s, and everyone who can reach it may send frames of any run; give clients tokens (--listen-access-file) or certificates (--listen-client-ca-file), unless a firewall lets only trainers through", c.Listen)})
	}
	return warnings
}

// openListenTLS returns the TLS configuration of the listener for frames, or nil if it
// has none. If it has authorities of clients, each client must have a certificate, or a
// token if there is an access file.
func (c *config) openListenTLS(files *secret.Files) (*tls.Config, error) {
	clients := tls.RequireAndVerifyClientCert
	if c.Access != "" {
		clients = tls.VerifyClientCertIfGiven
	}
	return tlsfiles.OpenServer(files, "listen-", c.ListenTLS, clients)
}

// openListenAccess returns who may send what, or nil if everyone may send everything.
// With authorities of clients and no access file, each client with a certificate may. The
// handshake has verified it, but it may expire while the connection is open.
func (c *config) openListenAccess(files *secret.Files) (*access.Gate, error) {
	switch {
	case c.Access != "":
		return access.Open(files, "--listen-access-file", c.Access)
	case c.ListenTLS.ClientCAFile != "":
		return access.AnyCertificate(), nil
	}
	return nil, nil
}

// validateTensors validates the settings of the tensor store, if there is one.
func (c *config) validateTensors() error {
	if err := c.Tensors.Validate(); err != nil || c.Tensors.Kind == claimcheck.KindNone {
		return err
	}
	if c.Ingest.MaxUploadBytes < c.Tensors.MaxTensorBytes {
		return &oona.FieldError{Field: "--max-upload-bytes", Reason: fmt.Sprintf("is %s, less than a tensor of --max-tensor-bytes, %s, needs; give at least as much", size.Text(c.Ingest.MaxUploadBytes), size.Text(c.Tensors.MaxTensorBytes))}
	}
	if err := c.Ingest.ValidateTensors(); err != nil {
		return err
	}
	return c.Tensors.CheckHere()
}

// closing is the part of the drain timeout in which connections and files are closed.
const closing = 2 * time.Second

// stage returns the configuration of the stage.
func (c *config) stage(topics oona.Topics) ingest.Config {
	stage := c.Ingest
	stage.Topic, stage.Events = topics.SeedMetrics, topics
	stage.Spool.Drain = c.DrainTimeout - closing
	return stage
}

// publisher returns the options of the publisher, which serves requests and the raw
// topic. Its delivery timeout is shorter than the stage's timeout, so that the answer
// to a request says why. MaxMessageBytes allows for dead letters of the raw topic,
// which may be larger than the records of frames that BatchBytes limits.
func (c *config) publisher(topics oona.Topics) bus.PublisherOptions {
	return bus.PublisherOptions{
		Compression:     c.Compression,
		BatchBytes:      c.Ingest.MaxMessageBytes,
		MaxMessageBytes: max(c.Ingest.MaxMessageBytes, oona.MaxSideBytes),
		DeliveryTimeout: c.Ingest.PublishTimeout / 2,
		Pin:             topics.SeedMetrics,
	}
}

// checkedTopics returns the topics to check at the start. The topic of frames must
// accept records of the size that ingest writes. The topics of rollups show whether
// the number of partitions was changed while no ingest ran. The raw topic is checked
// if ingest reads it.
func (c *config) checkedTopics(topics oona.Topics) []oona.TopicSpec {
	checked := []string{topics.SeedMetrics, topics.LayerHealth, topics.LayerPerformance}
	specs := slices.DeleteFunc(topics.Specs(0), func(s oona.TopicSpec) bool { return !slices.Contains(checked, s.Name) })
	for i := range specs {
		if specs[i].Name == topics.SeedMetrics {
			specs[i].LeastMessageBytes = c.Ingest.MaxMessageBytes
		}
	}
	if c.Raw {
		specs = append(specs, topics.RawSpecs(0)...)
	}
	return specs
}
