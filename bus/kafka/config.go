package kafka

import (
	"fmt"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/address"
	"github.com/morphogenetic/oona/internal/secret"
)

// Config configures the connections to Kafka.
type Config struct {
	Brokers  []string `placeholder:"HOST:PORT" default:"127.0.0.1:9092" help:"Kafka brokers to connect to first. The other brokers are discovered through them."`
	ClientID string   `name:"client-id" placeholder:"NAME" default:"oona" help:"Client ID in the brokers' logs and quotas."`

	Security Security `embed:""`

	// Secrets counts and logs changes of the files of Security. It may be nil.
	Secrets *secret.Files `kong:"-"`

	// Settle is for how long a request is repeated if the answers of the brokers may be older
	// than a recent change. 0 means 3 seconds.
	Settle time.Duration `kong:"-"`

	// Patience is added to each timeout after which a member, a request or a handler counts as
	// lost. Only tests use it, because a busy machine may stop them for a minute.
	Patience time.Duration `kong:"-"`

	login *login // login of the Bus with this configuration
}

// SettleTime returns Settle, or its default.
func (c Config) SettleTime() time.Duration {
	if c.Settle > 0 {
		return c.Settle
	}
	return settleWait
}

// Validate returns an error that wraps an *oona.FieldError for the first field that is
// wrong.
func (c Config) Validate() error {
	if len(c.Brokers) == 0 {
		return &oona.FieldError{Field: "--brokers", Reason: "is empty; give at least one HOST:PORT"}
	}
	for i, text := range c.Brokers {
		if strings.Contains(text, "@") { // the text is not quoted, because it may have a password
			return &oona.FieldError{Field: "--brokers", Reason: fmt.Sprintf("entry %d has an @; give only HOST:PORT, and the user and the password with --bus-sasl-username and --bus-sasl-password-file", i+1)}
		}
		broker, err := address.Parse(text)
		if err == nil && (broker.Host == "" || broker.Port == 0) {
			err = fmt.Errorf("is %q; a broker needs a host and a port above 0", text)
		}
		if err != nil {
			return &oona.FieldError{Field: "--brokers", Reason: fmt.Sprintf("entry %d %v", i+1, err)}
		}
	}
	if c.ClientID == "" {
		return &oona.FieldError{Field: "--client-id", Reason: "is empty; give a name that tells this client from others"}
	}
	return c.Security.Validate()
}

const (
	// settleWait is the default of Config.Settle.
	settleWait  = 3 * time.Second
	dialTimeout = 2 * time.Second
	// fetchBytes is the size of a fetch of one partition. With sarama's default of 1 MiB,
	// reading is three times slower.
	fetchBytes = 8 << 20
	// maxDecompressed is the maximum size of a batch after decompression. It is necessary
	// because a small batch can decompress to a very large one. A larger batch stops its
	// partition, so the limit is far above the batches of normal producers. All batches of a
	// fetch are in memory at the same time.
	maxDecompressed = 96 << 20

	sessionTimeout   = 10 * time.Second
	heartbeat        = 3 * time.Second
	rebalanceTimeout = 20 * time.Second
)

func init() {
	sarama.MaxDecompressedBatchSize = maxDecompressed // sarama has no field for it in its configuration
}

// client returns the part of the configuration that producers, consumers and administration share.
// It uses the protocol of Kafka 2.8, which every later version supports.
func (c Config) client() *sarama.Config {
	s := sarama.NewConfig()
	s.ClientID = c.ClientID
	s.Version = sarama.V2_8_0_0
	s.Net.DialTimeout = dialTimeout + c.Patience
	s.Net.ReadTimeout = 5*time.Second + c.Patience
	s.Net.WriteTimeout = 5*time.Second + c.Patience
	s.Metadata.Full = true // otherwise NewClient succeeds without a request to any broker
	s.Metadata.AllowAutoTopicCreation = false
	s.Metadata.Timeout = 5*time.Second + c.Patience // for a broker that accepts connections and does not answer
	s.Metadata.Retry.Max = 1
	s.Metadata.Retry.Backoff = 100 * time.Millisecond
	s.Admin.Timeout = 5*time.Second + c.Patience
	c.secure(s)
	return s
}

// readingAhead returns the configuration of members and readers that fetch about the given number
// of bytes of a partition before they are needed. 0 means fetchBytes.
func (c Config) readingAhead(bytes int) *sarama.Config {
	s := c.consumer()
	if bytes > 0 {
		s.Consumer.Fetch.Default = int32(bytes)
		s.ChannelBufferSize = 1
	}
	return s
}

// consumer returns the configuration of members and readers.
func (c Config) consumer() *sarama.Config {
	s := c.client()
	// A member that joins waits for the others for up to the rebalance timeout.
	s.Net.ReadTimeout = rebalanceTimeout + 5*time.Second + c.Patience
	s.Metadata.Timeout = 0
	s.Metadata.Retry.Max = 3
	s.Metadata.Retry.Backoff = 250 * time.Millisecond
	s.Consumer.Return.Errors = true
	s.Consumer.Retry.Backoff = 500 * time.Millisecond
	s.Consumer.Fetch.Default = fetchBytes
	s.Consumer.Offsets.Initial = sarama.OffsetOldest // OffsetNewest would skip records that are older than the group
	s.Consumer.Offsets.AutoCommit.Enable = false
	s.Consumer.Group.ResetInvalidOffsets = false // it would skip records silently
	s.Consumer.Group.Session.Timeout = sessionTimeout + c.Patience
	s.Consumer.Group.Heartbeat.Interval = heartbeat
	s.Consumer.Group.Rebalance.Timeout = rebalanceTimeout + c.Patience
	s.Consumer.Group.Rebalance.Retry.Backoff = time.Second
	s.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()} // eager
	return s
}
