package tracing

import (
	"testing"
)

func TestTraceparent(t *testing.T) {
	const valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	c, ok := Parse(valid)
	if !ok || !c.Sampled || c.String() != valid {
		t.Fatalf("%q is read as %s, %v", valid, c, ok)
	}
	if c, ok = Parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"); !ok || c.Sampled {
		t.Errorf("flag 00 is read as %v, %v", c, ok)
	}
	if c, ok = Parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"); !ok || !c.Sampled {
		t.Errorf("a later version is read as %v, %v", c, ok)
	}
	for _, bad := range []string{
		"", valid[1:], valid + "-00",
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333g-01",
		"00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	} {
		if c, ok := Parse(bad); ok {
			t.Errorf("%q is read as %s", bad, c)
		}
	}
}

func TestDerivedContexts(t *testing.T) {
	a, b := Derived(true, "topic", 1, 2), Derived(true, "topic", 1, 2)
	if a != b || !a.Valid() {
		t.Errorf("the same parts give %s and %s", a, b)
	}
	for _, other := range []Context{Derived(true, "topic", 2, 1), Derived(true, "topics", 1, 2)} {
		if other.Trace == a.Trace || other.Span == a.Span {
			t.Errorf("other parts give %s, too", other)
		}
	}
}

// The decision about a frame is documented for clients, so it must not change. The numbers
// come from: printf 'trainer-0 7 42' | sha256sum
func TestSamplerOfFrames(t *testing.T) {
	for ratio, want := range map[float64]bool{0: false, 1: true} {
		if got := NewSampler(ratio).Frame("trainer-0", 7, 42); got != want {
			t.Errorf("at ratio %v the decision is %v", ratio, got)
		}
	}
	// The hash of "trainer-0 7 42" begins with 81b7bfe4, so its part of 2^64 is 0.50671...
	if NewSampler(0.5067).Frame("trainer-0", 7, 42) || !NewSampler(0.5068).Frame("trainer-0", 7, 42) {
		t.Error("the threshold of a frame is not the one that its hash gives")
	}
	const n = 20_000
	taken := 0
	s := NewSampler(0.25)
	for i := range int64(n) {
		if s.Frame("trainer-0", 7, i) {
			taken++
		}
	}
	if share := float64(taken) / n; share < 0.23 || share > 0.27 {
		t.Errorf("a ratio of 0.25 takes %v", share)
	}
}
