package avro

import (
	"fmt"

	"github.com/linkedin/goavro/v2"
)

// archived has the fields of the archive's Record, which nothing writes yet, for
// twmb/avro.
type archived struct {
	Topic       string  `avro:"topic"`
	Partition   int32   `avro:"partition"`
	Incarnation int64   `avro:"incarnation"`
	Offset      int64   `avro:"offset"`
	AppendTime  int64   `avro:"append_time"`
	Key         *[]byte `avro:"key"`
	Headers     []struct {
		Name  string `avro:"name"`
		Value []byte `avro:"value"`
	} `avro:"headers"`
	Value *[]byte `avro:"value"`
}

// archivedByGoavro is a golden payload that goavro has written.
func archivedByGoavro() []byte {
	data, err := encodeArchived(map[string]any{
		"topic": "kasmina.telemetry.seed.metrics", "partition": int32(3), "incarnation": int64(1_790_000_000_000_000),
		"offset": int64(5_000_000_000), "append_time": int64(1_790_000_001_000_000), "key": goavro.Union("bytes", []byte{}),
		"headers": []any{map[string]any{"name": "oona-path", "value": []byte("ingest-1")}, map[string]any{"name": "oona-path", "value": []byte{}}},
		"value":   nil,
	})
	if err != nil {
		panic(err)
	}
	return data
}

func encodeArchived(native map[string]any) ([]byte, error) {
	codec, err := goavro.NewCodec(string(published.latest[archiveRecord].parsed.Canonical()))
	if err != nil {
		return nil, err
	}
	return codec.SingleFromNative(nil, native)
}

// decodeArchived reads a Record with twmb/avro and writes it with goavro.
func decodeArchived(data []byte) ([]byte, error) {
	v, err := published.find(data, archiveRecord)
	if err != nil {
		return nil, err
	}
	var w archived
	rest, err := v.decode(data, &w)
	if err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes follow: %w", len(rest), err)
	}
	native := map[string]any{
		"topic": w.Topic, "partition": w.Partition, "incarnation": w.Incarnation, "offset": w.Offset, "append_time": w.AppendTime,
		"key": nil, "value": nil,
	}
	for name, b := range map[string]*[]byte{"key": w.Key, "value": w.Value} {
		if b != nil {
			native[name] = goavro.Union("bytes", *b)
		}
	}
	headers := []any{}
	for _, h := range w.Headers {
		headers = append(headers, map[string]any{"name": h.Name, "value": h.Value})
	}
	native["headers"] = headers
	return encodeArchived(native)
}
