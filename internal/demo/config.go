package demo

import (
	"errors"
	"fmt"
	"time"

	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/loadgen"
	"github.com/morphogenetic/oona/windows"
)

// Config configures a demo. Its fields are the flags of oona demo.
type Config struct {
	Recording string        `placeholder:"FILE" group:"What to play" help:"Avro object container file to play."`
	Synthetic string        `placeholder:"layers=64,seeds=1000,rate=100" group:"What to play" help:"Generate load instead: number of layers, seeds per layer, and frames per second in total."`
	Speed     string        `group:"What to play" help:"Speed relative to the recording, for example 2; or max."`
	Once      bool          `group:"What to play" help:"Stop after the recording, when its last windows have closed."`
	For       time.Duration `group:"What to play" help:"Stop after this time; 0: run until Ctrl-C."`
	JSON      bool          `name:"json" group:"What to play" help:"Print the reconciliation as JSON on stdout, everything else on stderr."`

	Data        string   `placeholder:"DIR" group:"Where" help:"Directory for the topics of the embedded broker. Default: a temporary directory."`
	Kafka       []string `env:"OONA_DEMO_KAFKA" placeholder:"HOST:PORT" group:"Where" help:"Use these brokers instead of the embedded one."`
	Prefix      string   `group:"Where" help:"Prefix of topic names."`
	Partitions  int32    `group:"Where" help:"Number of partitions of new topics."`
	IngestPort  int      `group:"Where" help:"Preferred port of ingest. If it is in use, another is picked."`
	AdminPort   int      `group:"Where" help:"Preferred port of /metrics."`
	TensorsPort int      `group:"Where" help:"Preferred port of the embedded S3 server."`
	BrokerPort  int      `group:"Where" help:"Preferred port of the embedded broker."`

	Security kafka.Security `embed:"" group:"With --kafka"`

	Window time.Duration `group:"Windows" help:"Length of a window. The other times are derived from it. The default in production is 10s."`
	Idle   time.Duration `group:"Windows" help:"How long a producer must be silent before windows close without it. The default in production is 60s."`

	Patience time.Duration `kong:"-"` // most time to wait for what is on its way; for tests
	Grace    time.Duration `kong:"-"` // the same after the signal to stop, and then for each step of the end; for tests
}

// DefaultConfig returns the defaults of the flags. Windows are shorter than in
// production, so that new users see results soon.
func DefaultConfig() Config {
	return Config{
		Recording:   "testdata/digits.avro",
		Speed:       "1",
		Prefix:      "kasmina",
		Partitions:  4,
		IngestPort:  8080,
		AdminPort:   9103,
		TensorsPort: 9000,
		BrokerPort:  9092,
		Window:      2 * time.Second,
		Idle:        5 * time.Second,
		Patience:    30 * time.Second,
		Grace:       10 * time.Second,
	}
}

// Validate returns an error that names the first invalid flag.
func (c Config) Validate() error {
	if _, err := loadgen.ParseSpeed(c.Speed); err != nil {
		return err
	}
	if c.Synthetic != "" {
		if _, err := loadgen.ParseSynthetic(c.Synthetic); err != nil {
			return err
		}
		if c.Once {
			return errors.New("--once ends with a recording, and --synthetic has no end; give --for")
		}
	}
	if c.For < 0 {
		return fmt.Errorf("--for is %s; give a time above 0", c.For)
	}
	if c.Partitions < 1 {
		return fmt.Errorf("--partitions is %d; give at least 1", c.Partitions)
	}
	if c.Data != "" && len(c.Kafka) > 0 {
		return errors.New("--data is the embedded broker's directory and --kafka uses another broker; give one of them")
	}
	if c.Window < time.Millisecond {
		return fmt.Errorf("--window is %s; give at least 1ms", c.Window)
	}
	w := c.windows()
	if c.Idle <= 2*w.TickInterval {
		return fmt.Errorf("--idle is %s; give more than two ticks of %s", c.Idle, w.TickInterval)
	}
	return w.Validate()
}

// group returns the consumer group of the aggregator.
func (c Config) group() string { return c.Prefix + "-demo" }

// windows returns the engine's configuration, derived from c.Window and c.Idle.
func (c Config) windows() windows.Config {
	w := windows.DefaultConfig()
	w.Length = c.Window
	w.OutOfOrderness = (c.Window / 10).Truncate(time.Microsecond)
	w.AllowedLateness = (c.Window / 4).Truncate(time.Microsecond)
	w.TickInterval = min(time.Second, (c.Window / 8).Truncate(time.Microsecond))
	w.IdleHorizon = c.Idle
	return w
}
