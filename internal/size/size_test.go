package size

import (
	"math"
	"strconv"
	"testing"
	"testing/quick"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "0B": 0, "1": 1, "-1": -1, "0100": 100, "2000000": 2_000_000, "1_000_000": 1_000_000, "2000000B": 2_000_000,
		"16KiB": 16 << 10, "16KB": 16 << 10, "1.5MiB": 3 << 19, "1GiB512MiB": 3 << 29, "-1KiB": -1024,
		strconv.Itoa(math.MaxInt64): math.MaxInt64, "7EiB": 7 << 60,
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%s is %d (%v), want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-", "_", "0x10", "MiB", "1kB", "1 MiB", "1e6", "ten", "1.5", "8EiB", "9EiB", "9223372036854775808"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q is accepted as %d", text, got)
		}
	}
}

func TestText(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0", 1: "1", 1000: "1000", 1024: "1KiB", 1025: "1025", 2_000_000: "2000000", 3 << 29: "1536MiB", 1 << 30: "1GiB", -2048: "-2KiB", 1 << 62: "4EiB",
	} {
		if got := Text(bytes); got != want {
			t.Errorf("%d is written %s, want %s", bytes, got, want)
		}
	}
	inverse := func(bytes int64, shift uint8) bool {
		bytes <<= shift % 64
		got, err := Parse(Text(bytes))
		return err == nil && got == bytes
	}
	if err := quick.Check(inverse, nil); err != nil {
		t.Error(err)
	}
}
