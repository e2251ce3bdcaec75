package avro

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/linkedin/goavro/v2"
)

var goavroCodecs sync.Map // by version: they take longer to make than to use

// goavroCodec reads the canonical form: goavro keeps logical types in its own,
// so that its fingerprint of the file would be another.
func goavroCodec(t testing.TB, v *version) *goavro.Codec {
	t.Helper()
	if codec, ok := goavroCodecs.Load(v); ok {
		return codec.(*goavro.Codec)
	}
	codec, err := goavro.NewCodec(string(v.parsed.Canonical()))
	if err != nil {
		t.Fatal(err)
	}
	goavroCodecs.Store(v, codec)
	return codec
}

func TestFingerprintsAgreeWithGoavro(t *testing.T) {
	for fp, v := range published.byFingerprint {
		codec, err := goavro.NewCodec(string(v.parsed.Canonical()))
		if err != nil {
			t.Fatal(err)
		}
		if codec.Rabin != fp {
			t.Errorf("%s version %d: ours %016x, goavro %016x", v.Name, v.Version, fp, codec.Rabin)
		}
	}
}

func TestGoavroWritesTheSameBytes(t *testing.T) {
	for i, s := range samples(t) {
		t.Run(fmt.Sprint(i, " ", s.name), func(t *testing.T) {
			theirs, err := goavroCodec(t, written(t, s.data)).SingleFromNative(nil, s.native)
			if err != nil {
				t.Fatal(err)
			}
			if s.ordered && !bytes.Equal(theirs, s.data) {
				t.Errorf("goavro %x\nours   %x", theirs, s.data)
			}
			again, err := s.decode(theirs)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again, s.data) {
				t.Errorf("read from goavro %x\nours %x", again, s.data)
			}
		})
	}
}

func TestGoavroReadsTheSameValues(t *testing.T) {
	for i, s := range samples(t) {
		t.Run(fmt.Sprint(i, " ", s.name), func(t *testing.T) {
			native, rest, err := goavroCodec(t, written(t, s.data)).NativeFromSingle(s.data)
			if err != nil {
				t.Fatal(err)
			}
			if len(rest) > 0 {
				t.Errorf("goavro leaves %d bytes", len(rest))
			}
			// Printed, so that a NaN equals a NaN; the bits are in the other test.
			if got, want := fmt.Sprint(native), fmt.Sprint(s.native); got != want {
				t.Errorf("goavro reads %s\nwant %s", got, want)
			}
		})
	}
}

func writeWithGoavro(t *testing.T, v *version, native map[string]any) []byte {
	t.Helper()
	data, err := goavroCodec(t, v).SingleFromNative(nil, native)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
