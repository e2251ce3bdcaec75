package ingest

import (
	"bytes"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/morphogenetic/oona"
)

// With rates, a client that sends more gets 429, with the time after which it may send
// again. Others are not affected, and clients that have waited are forgotten.
func TestRates(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"requests": func(c *Config) { c.ClientRequests = 10 },
		"bytes":    func(c *Config) { c.ClientBytes = 10 * 1000 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, &acknowledging{}, change)
				large := append(bytes.Repeat([]byte(" "), 1000-len(goodJSON)), goodJSON...) // a tenth of the rate
				send := func(address string) (int, string) {
					w := postTyped(s, address, mediaJSON, large)
					if w.Code == http.StatusTooManyRequests {
						if p := decodeProblem(t, w); p.Type != "urn:oona:problem:share" {
							t.Errorf("the problem is %s", w.Body)
						}
					}
					return w.Code, w.Header().Get("Retry-After")
				}
				accepted := 0
				for range 100 {
					if code, retry := send("10.0.0.1:1"); code == http.StatusOK {
						accepted++
					} else if code != http.StatusTooManyRequests || retry != "1" {
						t.Fatalf("answered %d, Retry-After %q", code, retry)
					}
				}
				if accepted != 10 {
					t.Errorf("%d requests at once were accepted, want 10, those of a second", accepted)
				}
				if code, _ := send("10.0.0.2:1"); code != http.StatusOK {
					t.Errorf("another client gets %d", code)
				}
				for range 100 { // in ten seconds
					time.Sleep(100 * time.Millisecond)
					if code, _ := send("10.0.0.1:1"); code == http.StatusOK {
						accepted++
					}
				}
				if accepted < 108 || accepted > 110 {
					t.Errorf("%d requests were accepted in ten seconds, want ten a second and ten at once", accepted)
				}
				time.Sleep(time.Minute)
				postFrom(s, "10.0.0.3:1", "", frames(nil))
				time.Sleep(time.Minute)
				s.sharing.join(clientKey{name: "one"}, time.Now()).leave()
				if n := len(s.sharing.clients); n != 0 {
					t.Errorf("%d clients are known afterwards", n)
				}
			})
		})
	}
}

func TestRatesAreChecked(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"--client-requests": func(c *Config) { c.ClientRequests = -1 },
		"--client-bytes":    func(c *Config) { c.ClientBytes = -1 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if wrong, ok := errors.AsType[*oona.FieldError](cfg.Validate()); !ok || wrong.Field != field {
			t.Errorf("%s: %v", field, cfg.Validate())
		}
	}
}
