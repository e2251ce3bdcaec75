package ingest

import (
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/alecthomas/units"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/intake"
	"github.com/morphogenetic/oona/internal/access"
	"github.com/morphogenetic/oona/internal/size"
	"github.com/morphogenetic/oona/internal/tracing"
	"github.com/morphogenetic/oona/schemas/registry"
)

// Config configures the stage.
type Config struct {
	Topic    string      `kong:"-"` // topic of frames
	Events   oona.Topics `kong:"-"` // for events
	Instance string      `placeholder:"ID" help:"ID of this ingest. It must be unique among ingests and the same after a restart, because aggregators keep a watermark of each producer for each ingest."`

	Access *access.Gate    `kong:"-"` // who may send what; nil: everyone may send everything
	Tracer *tracing.Tracer `kong:"-"` // nil: there are no traces

	Registry *registry.Registry `kong:"-"` // nil: there is none, and frames that need one are refused

	MaxBodyBytes         int64 `type:"size" help:"Maximum size of a request body as sent."`
	MaxDecompressedBytes int64 `type:"size" help:"Maximum size of a request body after decompression, and of all blocks of an object container file."`
	MaxFrames            int   `help:"Maximum number of frames in a request."`
	MaxReadings          int   `help:"Maximum number of readings (seeds) in a frame."`
	MaxMetrics           int   `help:"Maximum number of metrics in a frame."`
	MaxTensors           int   `help:"Maximum number of tensors in a frame."`
	MaxMessageBytes      int   `type:"size" help:"Maximum size of a record on the bus (max.message.bytes of the topic), above 1KiB. The limit of a frame is 1KiB lower."`

	MaxInFlight    int     `help:"Maximum number of requests processed concurrently after their bodies were received. Further requests get 429."`
	MaxMemoryBytes int64   `type:"size" help:"Maximum memory for requests and records in progress, decompressed and decoded. Beyond it, requests get 429 and records of the raw topic wait. Default: a quarter of GOMEMLIMIT if that is set, otherwise 512MiB."`
	MaxConnections int     `help:"Maximum number of open connections of clients. Further ones are closed at once."`
	ClientShare    float64 `help:"The fraction of the connections (max-connections), requests in progress (max-in-flight), memory (max-memory-bytes) and processor time that one client may use while no other client uses any, above 0 and at most 1. The more is in use, the less each client can get. Clients are told apart by token, by certificate, or otherwise by address. With 1, one client can use everything."`

	ClientRequests int              `help:"Maximum number of requests of one client per second. Further ones get 429. Default: no limit."`
	ClientBytes    units.Base2Bytes `placeholder:"SIZE" help:"Maximum size of the bodies of one client in a second, as they are sent. Further requests get 429. Default: no limit."`

	ReadTimeout    time.Duration `help:"Maximum time for a client to send a request. A client that stalls is disconnected earlier."`
	PublishTimeout time.Duration `help:"Maximum time to wait for the bus. After it, a request gets 503."`
	Spool          Spool         `embed:"" prefix:"spool-" group:"Spool"`
	Strict         bool          `help:"Refuse requests with frames that the aggregator will put aside (400), whether or not the client sends Prefer: handling=strict."`
	ClockTolerance time.Duration `help:"Maximum difference between a client's clock (Oona-Sent-At) and ingest's."`

	Tensors           TensorStore   `kong:"-"` // nil: there is no store, and all tensors stay in their frames
	InlineTensorBytes int           `type:"size" group:"Tensors" help:"Maximum size of a tensor that stays in its frame. Larger tensors go to the tensor store if one is configured."`
	MaxTensorRequests int           `group:"Tensors" help:"Maximum number of requests that wait for the tensor store. Further requests with tensors get 429; requests without tensors are not affected."`
	MaxUploadBytes    int64         `type:"size" group:"Tensors" help:"Maximum total size of the tensors being uploaded (PUT /v1/tensors). They are in $TMPDIR, and up to 1MiB of each in memory (max-memory-bytes). Further uploads get 429."`
	StoreTimeout      time.Duration `group:"Tensors" help:"Maximum time to wait for the tensor store. After it, a request with frames gets 503."`
	TensorTimeout     time.Duration `group:"Tensors" help:"Maximum time to receive a tensor (PUT /v1/tensors) and to write it to the store."`
}

// DefaultConfig returns the defaults, without a topic. MaxMemoryBytes limits the
// capacity of everything that was received and is not settled: bodies, what they are
// decompressed and decoded to, records of the raw topic, and the part of uploaded
// tensors that is in memory. A length that was only declared does not count.
//
// A frame that is observed more than a minute ahead of the broker's clock is
// quarantined. ClockTolerance is half of that. The rest allows for the difference
// between the clocks of ingest and the broker.
func DefaultConfig() Config {
	c := Config{
		Instance:             defaultInstance(),
		MaxBodyBytes:         8 << 20,
		MaxDecompressedBytes: 16 << 20,
		MaxFrames:            1_024,
		MaxReadings:          oona.DefaultFrameLimits.Seeds,
		MaxMetrics:           oona.DefaultFrameLimits.Metrics,
		MaxTensors:           oona.DefaultFrameLimits.Tensors,
		MaxMessageBytes:      oona.DefaultRecordBytes, // also the default limit of Kafka's clients
		InlineTensorBytes:    16 << 10,
		MaxTensorRequests:    32,
		MaxUploadBytes:       2 << 30,
		StoreTimeout:         5 * time.Second,
		TensorTimeout:        2 * time.Minute,
		MaxInFlight:          64,
		MaxConnections:       4096,
		ClientShare:          0.5,
		ReadTimeout:          30 * time.Second,
		PublishTimeout:       10 * time.Second,
		Spool:                defaultSpool(),
		ClockTolerance:       30 * time.Second,
	}
	c.MaxMemoryBytes = max(defaultMemory(), c.leastMemory())
	return c
}

// defaultMemory returns a quarter of GOMEMLIMIT, if that is set.
func defaultMemory() int64 {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		return limit / 4
	}
	return 512 << 20
}

// leastMemory returns how much memory one request can need: its body, decompressed,
// the blocks of a container in it, and their tensors twice. A quarter of the memory is
// reserved for tensors and the raw topic.
func (c Config) leastMemory() int64 {
	if max(c.MaxBodyBytes, c.MaxDecompressedBytes) > math.MaxInt64/32 { // the sum would overflow
		return math.MaxInt64
	}
	return (c.MaxBodyBytes + 4*c.MaxDecompressedBytes) * 4 / 3
}

// mostTime is the maximum of each timeout, so that their sums do not overflow.
const mostTime = 24 * time.Hour

// Validate returns an *oona.FieldError for the first setting that is wrong.
func (c Config) Validate() error {
	if err := oona.CheckID("--instance", c.Instance); err != nil {
		return err
	}
	for _, validate := range []func() error{c.validateLimits, c.validateClients, c.validateTimes, c.Spool.validate, c.validateStore, c.validateSizes} {
		if err := validate(); err != nil {
			return err
		}
	}
	return nil
}

// validateLimits checks what must only be above 0.
func (c Config) validateLimits() error {
	for _, limit := range []struct {
		name  string
		value int64
	}{
		{"max-body-bytes", c.MaxBodyBytes},
		{"max-decompressed-bytes", c.MaxDecompressedBytes},
		{"max-frames", int64(c.MaxFrames)},
		{"max-readings", int64(c.MaxReadings)},
		{"max-metrics", int64(c.MaxMetrics)},
		{"max-tensors", int64(c.MaxTensors)},
		{"inline-tensor-bytes", int64(c.InlineTensorBytes)},
		{"max-tensor-requests", int64(c.MaxTensorRequests)},
		{"max-upload-bytes", c.MaxUploadBytes},
		{"max-in-flight", int64(c.MaxInFlight)},
		{"max-connections", int64(c.MaxConnections)},
	} {
		if limit.value <= 0 {
			return &oona.FieldError{Field: "--" + limit.name, Reason: fmt.Sprintf("is %d; give a value above 0", limit.value)}
		}
	}
	return nil
}

// validateClients checks the limits of a single client.
func (c Config) validateClients() error {
	if c.ClientRequests < 0 {
		return &oona.FieldError{Field: "--client-requests", Reason: fmt.Sprintf("is %d; give a value above 0, or 0 for no limit", c.ClientRequests)}
	}
	if c.ClientBytes < 0 {
		return &oona.FieldError{Field: "--client-bytes", Reason: fmt.Sprintf("is %s; give a size above 0, or 0 for no limit", size.Text(c.ClientBytes))}
	}
	if !(c.ClientShare > 0 && c.ClientShare <= 1) {
		return &oona.FieldError{Field: "--client-share", Reason: fmt.Sprintf("is %g; give a value above 0 and at most 1", c.ClientShare)}
	}
	return nil
}

func (c Config) validateTimes() error {
	for _, limit := range []struct {
		name  string
		value time.Duration
	}{
		{"store-timeout", c.StoreTimeout},
		{"tensor-timeout", c.TensorTimeout},
		{"read-timeout", c.ReadTimeout},
		{"publish-timeout", c.PublishTimeout},
	} {
		if limit.value <= 0 || limit.value > mostTime {
			return &oona.FieldError{Field: "--" + limit.name, Reason: fmt.Sprintf("is %s; give a time above 0 and at most %s", limit.value, mostTime)}
		}
	}
	if c.ClockTolerance <= 0 {
		return &oona.FieldError{Field: "--clock-tolerance", Reason: fmt.Sprintf("is %s; give a time above 0", c.ClockTolerance)}
	}
	return nil
}

func (c Config) validateStore() error {
	if c.Tensors == nil {
		return nil
	}
	return c.ValidateTensors()
}

// validateSizes checks what depends on the limits of a request and of a record.
func (c Config) validateSizes() error {
	if least := c.leastMemory(); c.MaxMemoryBytes < least {
		return &oona.FieldError{Field: "--max-memory-bytes", Reason: fmt.Sprintf("is %s; give at least %s, which one request can need, or lower --max-decompressed-bytes (%s) or --max-body-bytes (%s)", size.Text(c.MaxMemoryBytes), size.Text(least), size.Text(c.MaxDecompressedBytes), size.Text(c.MaxBodyBytes))}
	}
	if c.MaxMessageBytes <= recordOverhead {
		return &oona.FieldError{Field: "--max-message-bytes", Reason: fmt.Sprintf("is %s; give more than %s", size.Text(c.MaxMessageBytes), size.Text(recordOverhead))}
	}
	return nil
}

// ValidateTensors returns an *oona.FieldError for the first setting that is wrong if
// there is a tensor store.
func (c Config) ValidateTensors() error {
	if c.MaxTensorRequests >= c.MaxInFlight {
		return &oona.FieldError{Field: "--max-tensor-requests", Reason: fmt.Sprintf("is %d; give less than --max-in-flight, which is %d, so that requests without large tensors are served while the store is down", c.MaxTensorRequests, c.MaxInFlight)}
	}
	return nil
}

// intake returns the settings for package intake.
func (c Config) intake() intake.Config {
	return intake.Config{
		Frame:                oona.FrameLimits{Seeds: c.MaxReadings, Metrics: c.MaxMetrics, Tensors: c.MaxTensors},
		MaxFrames:            c.MaxFrames,
		MaxDecompressedBytes: c.MaxDecompressedBytes,
		Events:               c.Events,
		MaxRecordBytes:       c.MaxMessageBytes - recordOverhead,
		Claims:               c.Tensors,
		InlineTensorBytes:    c.InlineTensorBytes,
	}
}

// recordOverhead is space for what the bus adds to a frame: a key of at most 260
// bytes, two headers of less than 300, and the fields of the record.
const recordOverhead = 1 << 10

// defaultInstance returns the name of the host. Characters that an ID must not have
// are replaced.
func defaultInstance() string {
	host, err := os.Hostname()
	if err != nil {
		return "ingest"
	}
	return instanceOf(host)
}

func instanceOf(host string) string {
	id := strings.Map(func(r rune) rune {
		if oona.CheckID("", string(r)) != nil {
			return '-'
		}
		return r
	}, host)
	if id = id[:min(len(id), oona.MaxIDLength)]; id == "" {
		return "ingest"
	}
	return id
}
