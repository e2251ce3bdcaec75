package main

import (
	"fmt"
	"slices"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/internal/worker"
	"github.com/morphogenetic/oona/pipeline/ingest"
)

// config is all that ingest can be told.
type config struct {
	worker.Config

	Listen string        `group:"Frames" placeholder:"ADDRESS" help:"Address on which to accept frames over HTTP; port 0 picks a free port."`
	Ingest ingest.Config `embed:"" group:"Frames"`

	Tensors claimcheck.Config `embed:"" group:"Tensors"`

	Raw      bool   `group:"Raw topic" help:"Also read frames from the raw topic, to which trainers publish with a Kafka client. The topic must exist (oona topics apply)."`
	RawGroup string `name:"raw-group" group:"Raw topic" placeholder:"NAME" help:"Consumer group of the raw topic. Its members share the partitions."`

	Bus         kafka.Config `embed:"" group:"Bus"`
	Prefix      string       `group:"Bus" placeholder:"PREFIX" help:"Prefix of topic names."`
	Compression string       `group:"Bus" default:"lz4" enum:"lz4,none" help:"Compression of records: lz4 or none."`
}

func defaults() *config {
	return &config{
		Config:   worker.Config{AdminAddress: "127.0.0.1:9101"},
		Listen:   "127.0.0.1:8080",
		Ingest:   ingest.DefaultConfig(),
		Tensors:  claimcheck.DefaultConfig(),
		RawGroup: "oona-ingest",
		Prefix:   oona.DefaultPrefix,
	}
}

// Validate is called once flags, environment and file are read.
func (c *config) Validate() error {
	if err := c.Ingest.Validate(); err != nil {
		return err
	}
	if err := worker.CheckAddresses(worker.Listener{Flag: "--listen", Address: c.Listen}, worker.Listener{Flag: "--admin-address", Address: c.AdminAddress}); err != nil {
		return err
	}
	if least := c.Ingest.PublishTimeout + ingest.Grace; c.DrainTimeout < least {
		return &oona.FieldError{Field: "--drain-timeout", Reason: fmt.Sprintf("is %s, too short for requests in hand; give at least %s, or a shorter --publish-timeout", c.DrainTimeout, least)}
	}
	if err := c.validateTensors(); err != nil {
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

// validateTensors looks at what the tensor store needs, where there is one.
func (c *config) validateTensors() error {
	if err := c.Tensors.Validate(); err != nil || c.Tensors.Kind == claimcheck.KindNone {
		return err
	}
	if c.Ingest.MaxSpoolBytes < c.Tensors.MaxTensorBytes {
		return &oona.FieldError{Field: "--max-spool-bytes", Reason: fmt.Sprintf("is %d, which a tensor of --max-tensor-bytes, %d, exceeds; give at least as much", c.Ingest.MaxSpoolBytes, c.Tensors.MaxTensorBytes)}
	}
	if err := c.Ingest.ValidateTensors(); err != nil {
		return err
	}
	return c.Tensors.CheckHere()
}

// stage is the configuration of the stage.
func (c *config) stage(topics oona.Topics) ingest.Config {
	stage := c.Ingest
	stage.Topic = topics.SeedMetrics
	return stage
}

// publisher serves requests and the raw topic. It gives up before the stage does,
// so that a request is told why. A dead letter of the raw topic is a record as it
// was, and why it is there; frames are put together only to what their own topic
// takes.
func (c *config) publisher(topics oona.Topics) bus.PublisherOptions {
	return bus.PublisherOptions{
		Compression:     c.Compression,
		BatchBytes:      c.Ingest.MaxMessageBytes,
		MaxMessageBytes: max(c.Ingest.MaxMessageBytes, oona.MaxSideBytes),
		DeliveryTimeout: c.Ingest.PublishTimeout / 2,
		Pin:             topics.SeedMetrics,
	}
}

// checkedTopics are the topic of frames, which must take records of the size that
// ingest writes, and those of rollups, which were made with the same number of
// partitions: if it was changed while no ingest ran, they still have the old one. The
// raw topic is checked if it is read.
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
