package ingest

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona/schemas/registry/registrytest"
)

// slowInflater needs processor time before each read, and then returns what it was given.
type slowInflater struct {
	io.Reader
	takes time.Duration
}

func (i *slowInflater) Reset(r io.Reader) error { i.Reader = r; return nil }

func (i *slowInflater) Read(p []byte) (int, error) {
	time.Sleep(i.takes)
	return i.Reader.Read(p)
}

// costOf returns the processor time that a client is charged for what send does, while another
// client sends.
func costOf(s *Stage, send func(address string)) time.Duration {
	const address = "10.0.0.1:1"
	s.sharing.processors = 1
	s.sharing.join(clientKey{name: "other"}, time.Now()).leave()
	by := s.sharing.join(clientKey{address: networkOf(address)}, time.Now()) // it is not forgotten meanwhile
	defer by.leave()
	before := time.Now().Add(paceBurst) // so it owes something until the end, and nothing is forgiven
	by.paid = before
	send(address)
	return by.paid.Sub(before)
}

// A client pays for what is decompressed and decoded, also if that is little, and several times
// if it is refused.
func TestWorkIsCharged(t *testing.T) {
	const takes, bad = 5 * time.Millisecond, requestCost * (1 + refusedMore)
	fake := func(s *Stage) { s.codings.gzip.New = func() any { return &slowInflater{takes: takes} } }
	for name, c := range map[string]struct {
		change func(*Stage)
		coding string
		body   []byte
		want   time.Duration
	}{
		"frames":               {nil, "", frames(nil), requestCost},
		"gzip":                 {fake, "gzip", frames(nil), requestCost + 2*takes},
		"large gzip":           {nil, "gzip", gzipped(bytes.Repeat([]byte(" "), 100<<10)), bad + 100<<10*byteCost},
		"no gzip":              {nil, "gzip", []byte("no gzip"), bad},
		"gzip of other things": {fake, "gzip", []byte("<html>"), bad + 2*takes*(1+refusedMore)},
		"other things":         {nil, "", []byte("<html>"), bad},
		"bad frames":           {nil, "", []byte("\xc3\x01bad"), bad},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, &acknowledging{}, nil)
				if c.change != nil {
					c.change(s)
				}
				if got := costOf(s, func(address string) { postFrom(s, address, c.coding, c.body) }); got != c.want {
					t.Errorf("the client is charged %s, want %s", got, c.want)
				}
			})
		})
	}
}

// The same holds for frames of a schema registry. To wait for the registry costs nothing.
func TestRegisteredFramesAreCharged(t *testing.T) {
	fake := registrytest.Start(t, "")
	id := fake.Register("raw-value", frameSchema(t))
	s := newStage(t, &acknowledging{}, withRegistry(t, fake.Config))
	good := registered(t, id, frames(nil))
	bad := append(bytes.Clone(good), bytes.Repeat([]byte{0xff}, 100)...)
	if got, least := costOf(s, func(address string) { postFrom(s, address, "", bad) }), requestCost*(1+refusedMore); got < least {
		t.Errorf("for bad frames the client is charged %s, want %s at least", got, least)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newSharing(.5, nil, nil, nil, nil).join(clientKey{name: "a"}, time.Now()).work()
		time.Sleep(time.Millisecond)
		w.pause()
		time.Sleep(time.Hour)
		w.resume()
		time.Sleep(time.Millisecond)
		if w.pause(); w.took != 2*time.Millisecond || w.total != w.took {
			t.Errorf("%s are measured, and %s to be charged", w.total, w.took)
		}
	})
}
