package oona

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestKey(t *testing.T) {
	for _, tt := range []struct {
		run   RunID
		layer LayerID
		want  string
	}{
		{"r", "enc.3", "\x01r\x05enc.3"},
		{"", "", "\x00\x00"},
		{RunID(strings.Repeat("r", 128)), "l", "\x80\x01" + strings.Repeat("r", 128) + "\x01l"},
	} {
		if got := Key(tt.run, tt.layer); string(got) != tt.want {
			t.Errorf("Key(%q, %q) = %q, want %q", tt.run, tt.layer, got, tt.want)
		}
	}
}

func TestKeyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		run, layer := drawID(t, "run"), drawID(t, "layer")
		gotRun, gotLayer, err := ParseKey(Key(RunID(run), LayerID(layer)))
		if err != nil || string(gotRun) != run || string(gotLayer) != layer {
			t.Fatalf("ParseKey(Key(%q, %q)) = %q, %q, %v", run, layer, gotRun, gotLayer, err)
		}
	})
}

// TestKeysDoNotMeet cuts one text at two places: what a key without lengths
// would confuse.
func TestKeysDoNotMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := drawID(t, "text")
		i := rapid.IntRange(0, len(text)).Draw(t, "i")
		j := rapid.IntRange(0, len(text)).Draw(t, "j")
		first := Key(RunID(text[:i]), LayerID(text[i:]))
		second := Key(RunID(text[:j]), LayerID(text[j:]))
		if bytes.Equal(first, second) != (i == j) {
			t.Fatalf("%q cut at %d has the key %q, cut at %d %q", text, i, first, j, second)
		}
		// Nor is one key the beginning of another: keys can stand in a row.
		if i != j && (bytes.HasPrefix(first, second) || bytes.HasPrefix(second, first)) {
			t.Fatalf("%q and %q: one begins with the other", first, second)
		}
	})
}

// drawID draws ids of all lengths, bytes that look like lengths included.
func drawID(t *rapid.T, label string) string {
	return rapid.OneOf(
		rapid.StringMatching(`[A-Za-z0-9._:-]{1,6}`),
		rapid.StringOfN(rapid.SampledFrom([]rune{'\x00', '\x01', '\x02', 'a', 'b'}), 0, 6, -1),
		rapid.StringMatching(`[A-Za-z0-9._:-]{120,300}`),
	).Draw(t, label)
}

func TestParseKeyRefuses(t *testing.T) {
	for _, tt := range []struct{ name, key string }{
		{"empty", ""},
		{"run only", "\x01r"},
		{"run cut off", "\x05run"},
		{"layer cut off", "\x01r\x02l"},
		{"length beyond 64 bits", strings.Repeat("\xff", 10) + "\x01"},
		{"greatest length", strings.Repeat("\xff", 9) + "\x01"},
		{"something follows", "\x01r\x01lx"},
		{"overlong length", "\x81\x00r\x01l"},
		{"a plain text", "enc.3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := ParseKey([]byte(tt.key))
			if !errors.Is(err, ErrKey) {
				t.Errorf("ParseKey(%q): %v", tt.key, err)
			}
		})
	}
}

// FuzzParseKey: every key either is refused with ErrKey or is the one that Key
// makes of what was read, so that one pair has one key.
func FuzzParseKey(f *testing.F) {
	for _, key := range []string{"", "\x01r\x05enc.3", "\x00\x00", "\x81\x00r\x01l", "\x80\x01" + strings.Repeat("r", 128) + "\x01l", strings.Repeat("\xff", 11)} {
		f.Add([]byte(key))
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		run, layer, err := ParseKey(key)
		if err != nil {
			if !errors.Is(err, ErrKey) {
				t.Errorf("ParseKey(%q): %v does not wrap ErrKey", key, err)
			}
			return
		}
		if again := Key(run, layer); !bytes.Equal(again, key) {
			t.Errorf("ParseKey(%q) = %q, %q, whose key is %q", key, run, layer, again)
		}
	})
}
