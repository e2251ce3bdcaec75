package tensors_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/linkedin/goavro/v2"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/memory"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/deadletters"
	"github.com/morphogenetic/oona/replay/tensors"
	"github.com/morphogenetic/oona/schemas/avro"
)

// installation is a bus, with the references of its records.
type installation struct {
	t          *testing.T
	bus        *memory.Bus
	topics     oona.Topics
	out        bus.Publisher
	references *tensors.References
	reading    tensors.Reading
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	topics, err := oona.NewTopics(oona.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	i := &installation{t: t, bus: memory.New(), topics: topics, references: tensors.NewReferences()}
	if _, err := i.bus.Apply(t.Context(), slices.Concat(topics.Specs(2), topics.RawSpecs(2), []oona.TopicSpec{topics.RedrivesSpec()})); err != nil {
		t.Fatal(err)
	}
	if i.out, err = i.bus.Publisher(bus.PublisherOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.out.Close(); err != nil {
			t.Error(err)
		}
	})
	i.reading = tensors.Reading{Log: i.bus, Into: i.references}
	return i
}

func (i *installation) publish(topic string, value []byte) {
	i.t.Helper()
	if err := i.out.Publish(i.t.Context(), topic, bus.NewMessage(value, bus.Target{Key: []byte("k")})); err != nil {
		i.t.Fatal(err)
	}
}

// read reads all topics that may have frames.
func (i *installation) read(ctx context.Context) error {
	for _, topic := range []string{i.topics.SeedMetrics, i.topics.Late, i.topics.Quarantine, i.topics.Overflow} {
		if err := i.reading.Topic(ctx, topic, true); err != nil {
			return err
		}
	}
	for _, topic := range []string{i.topics.SeedMetricsDead, i.topics.SeedRaw, i.topics.SeedRawDead, i.topics.Redrives} {
		if err := i.reading.Topic(ctx, topic, false); err != nil {
			return err
		}
	}
	return nil
}

func digestOf(content string) tensors.Digest { return sha256.Sum256([]byte(content)) }

// referring returns a frame with a claim of each content.
func referring(contents ...string) *oona.Frame {
	f := &oona.Frame{Run: "r", Layer: "l", Producer: "p", ObservedAt: 1_700_000_000_000_000, Seeds: []oona.SeedID{1}, States: []oona.State{oona.Training}}
	for _, content := range contents {
		digest := digestOf(content)
		claim := &oona.TensorClaim{Bucket: "kasmina-tensors", Key: claimcheck.Key(digest), Size: int64(len(content)), SHA256: digest}
		f.Tensors = append(f.Tensors, oona.Tensor{Name: "w", Seed: 1, DType: "uint8", Shape: []int64{int64(len(content))}, Claim: claim})
	}
	return f
}

func encoded(contents ...string) []byte { return avro.AppendFrame(nil, referring(contents...)) }

// container returns an object container file with a frame that refers to a content.
func container(t *testing.T, codec, content string) []byte {
	t.Helper()
	var schema string
	for _, s := range avro.Schemas() {
		if strings.HasSuffix(s.Name, ".SeedMetrics") {
			schema = s.Text
		}
	}
	c, err := goavro.NewCodec(schema)
	if err != nil {
		t.Fatal(err)
	}
	single := encoded(content)
	native, _, err := c.NativeFromBinary(single[10:])
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w, err := goavro.NewOCFWriter(goavro.OCFConfig{W: &file, Codec: c, CompressionName: codec})
	if err == nil {
		err = w.Append([]any{native})
	}
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func zipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestReferences(t *testing.T) {
	key := func(content string) string { return claimcheck.Key(digestOf(content)) }
	jsonFrame := func(data string) []byte {
		return fmt.Appendf(nil, `[{"run_id":"r","layer_id":"l","producer_id":"p","producer_epoch":1,"sequence":1,"observed_at":1700000000000000,"step":1,
			"seed_ids":[1],"states":["TRAINING"],"metrics":[],"tensors":[{"name":"w","seed_id":1,"dtype":"uint8","shape":[1],"data":%s}]}]`, data)
	}
	escaped := strings.ReplaceAll(strings.Replace(key("escaped"), "tensors", `\u0074ensors`, 1), "/", `\/`)
	deflated := container(t, "deflate", "in a container")
	repaired, err := json.Marshal(deadletters.Outcome{State: deadletters.Pending, Frames: encoded("repaired")})
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		topic  func(oona.Topics) string
		value  []byte
		want   []string
		opaque int64
	}{
		"a frame":              {func(t oona.Topics) string { return t.SeedMetrics }, encoded("a", "b"), []string{"a", "b"}, 0},
		"a late frame":         {func(t oona.Topics) string { return t.Late }, encoded("a"), []string{"a"}, 0},
		"a quarantined frame":  {func(t oona.Topics) string { return t.Quarantine }, encoded("a"), []string{"a"}, 0},
		"an overflowed frame":  {func(t oona.Topics) string { return t.Overflow }, encoded("a"), []string{"a"}, 0},
		"nothing":              {func(t oona.Topics) string { return t.SeedMetrics }, encoded(), nil, 0},
		"bytes that follow":    {func(t oona.Topics) string { return t.SeedMetricsDead }, append(encoded("a"), 'x'), []string{"a"}, 0},
		"a frame cut short":    {func(t oona.Topics) string { return t.SeedMetricsDead }, encoded("a", "b")[:len(encoded("a", "b"))-20], []string{"a", "b"}, 0},
		"a registry's frame":   {func(t oona.Topics) string { return t.SeedRaw }, append([]byte{0, 0, 0, 0, 7}, encoded("a")[10:]...), []string{"a"}, 0},
		"several raw frames":   {func(t oona.Topics) string { return t.SeedRaw }, append(encoded("a"), encoded("b")...), []string{"a", "b"}, 0},
		"no frame at all":      {func(t oona.Topics) string { return t.SeedRawDead }, []byte("hello"), nil, 0},
		"an empty value":       {func(t oona.Topics) string { return t.SeedRawDead }, nil, nil, 0},
		"a JSON frame":         {func(t oona.Topics) string { return t.SeedRaw }, jsonFrame(fmt.Sprintf(`{"bucket":"b","key":%q,"size":1,"sha256":"%x"}`, key("j"), digestOf("j"))), []string{"j"}, 0},
		"escaped JSON":         {func(t oona.Topics) string { return t.SeedRawDead }, []byte(`{"nonsense": "` + escaped + `"`), []string{"escaped"}, 0},
		"a tensor to be kept":  {func(t oona.Topics) string { return t.SeedRaw }, jsonFrame(`"` + base64.StdEncoding.EncodeToString([]byte("x")) + `"`), []string{"x"}, 0},
		"a container":          {func(t oona.Topics) string { return t.SeedRaw }, deflated, []string{"in a container"}, 0},
		"a snappy container":   {func(t oona.Topics) string { return t.SeedRawDead }, container(t, "snappy", "in a container"), []string{"in a container"}, 0},
		"a damaged container":  {func(t oona.Topics) string { return t.SeedRawDead }, deflated[:len(deflated)-30], nil, 1},
		"a plain one, damaged": {func(t oona.Topics) string { return t.SeedRawDead }, container(t, "null", "p")[:len(container(t, "null", "p"))-17], []string{"p"}, 0},
		"a container, dead":    {func(t oona.Topics) string { return t.SeedMetrics }, deflated, []string{"in a container"}, 0},
		"a repaired letter":    {func(t oona.Topics) string { return t.Redrives }, repaired, []string{"repaired"}, 0},
		"gzip":                 {func(t oona.Topics) string { return t.SeedRawDead }, zipped(t, encoded("z")), nil, 1},
		"zstd":                 {func(t oona.Topics) string { return t.SeedMetricsDead }, []byte("\x28\xb5\x2f\xfd and so on"), nil, 1},
	} {
		i := newInstallation(t)
		topic := c.topic(i.topics)
		i.publish(topic, c.value)
		if err := i.read(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for digest := range maps.Keys(i.references.Uses) {
			got = append(got, hex.EncodeToString(digest[:]))
		}
		for _, content := range c.want {
			digest := digestOf(content)
			want = append(want, hex.EncodeToString(digest[:]))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || i.references.Opaque != c.opaque || i.references.Records != 1 {
			t.Errorf("%s: it refers to %q, want %q; %d records are opaque, want %d", what, got, want, i.references.Opaque, c.opaque)
		}
		if c.opaque > 0 && (len(i.references.FirstOpaque) != 1 || i.references.FirstOpaque[0].Topic != topic || i.references.FirstOpaque[0].Offset != 0) {
			t.Errorf("%s: the places are %v", what, i.references.FirstOpaque)
		}
	}
}

// A Use says how many records refer to a tensor, where the first one is, and what the tensor is.
func TestUse(t *testing.T) {
	i := newInstallation(t)
	i.publish(i.topics.SeedMetricsDead, encoded("refused"))
	i.publish(i.topics.SeedMetrics, encoded("a", "a"))
	i.publish(i.topics.SeedMetrics, encoded("a"))
	own := bus.NewMessage(encoded("not a frame"), bus.Target{Key: []byte("k")})
	own.Metadata.Set(oona.HeaderRecord, oona.TickRecord)
	if err := errors.Join(i.out.Publish(t.Context(), i.topics.SeedMetrics, own), i.read(t.Context())); err != nil {
		t.Fatal(err)
	}
	use := i.references.Uses[digestOf("a")]
	if use == nil || use.Records != 2 || !use.Accepted || use.First.Topic != i.topics.SeedMetrics || use.First.Offset != 0 || use.Run != "r" || use.Tensor == nil || use.Tensor.DType != "uint8" {
		t.Errorf("the use is %+v", use)
	}
	if refused := i.references.Uses[digestOf("refused")]; refused == nil || refused.Accepted {
		t.Errorf("the use is %+v", refused)
	}
	if i.references.Records != 4 || len(i.references.Uses) != 2 {
		t.Errorf("%d records refer to %d tensors", i.references.Records, len(i.references.Uses))
	}
}

// Reading continues where the last call has ended, also in new partitions. If a topic has become
// shorter or cannot be read, there is an error.
func TestReadOn(t *testing.T) {
	i := newInstallation(t)
	read := func(want int64) {
		t.Helper()
		if err := i.read(t.Context()); err != nil || i.references.Records != want {
			t.Errorf("%d records were read, want %d: %v", i.references.Records, want, err)
		}
	}
	for range 5 {
		i.publish(i.topics.SeedMetrics, encoded("a"))
	}
	read(5)
	read(5)
	if err := i.bus.AddPartitions(i.topics.SeedMetrics, 7); err != nil {
		t.Fatal(err)
	}
	for p := range int32(7) {
		if err := i.out.Publish(t.Context(), i.topics.SeedMetrics, bus.NewMessage(encoded("b"), bus.Target{Partition: p, Directed: true})); err != nil {
			t.Fatal(err)
		}
	}
	read(12)
	i.reading.Log = failing{i.bus, i.topics.SeedRawDead}
	if err := i.read(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("a topic that cannot be read: %v", err)
	}
	i.reading.Log = i.bus
	if err := i.bus.LoseTail(i.topics.SeedMetrics, 6, 0); err != nil {
		t.Fatal(err)
	}
	if err := i.read(t.Context()); !errors.Is(err, tensors.ErrShrunk) {
		t.Errorf("a log without its end: %v", err)
	}
}

// failing is a log with a topic that cannot be read to its end.
type failing struct {
	tensors.Log
	topic string
}

var errAway = errors.New("the leader does not answer")

func (f failing) Read(ctx context.Context, topic string, r bus.Range, take func(*message.Message) error) error {
	if topic == f.topic {
		return errAway
	}
	return f.Log.Read(ctx, topic, r, take)
}

// A producer may write any header to the raw topic. So the header of Oona's own records counts only in
// Oona's own topics.
func TestRawRecordsThatLookLikeOonas(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	for _, topic := range []string{i.topics.SeedRaw, i.topics.SeedRawDead, i.topics.SeedMetrics} {
		msg := bus.NewMessage(encoded(topic), bus.Target{Key: []byte("k")})
		msg.Metadata.Set(oona.HeaderRecord, "tick/1")
		if err := i.out.Publish(t.Context(), topic, msg); err != nil {
			t.Fatal(err)
		}
	}
	if err := i.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{i.topics.SeedRaw, i.topics.SeedRawDead} {
		if i.references.Uses[digestOf(topic)] == nil {
			t.Errorf("%s: the tensor is not referred to", topic)
		}
	}
}
