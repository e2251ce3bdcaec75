package ingest

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alecthomas/units"

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
				by := s.sharing.join(clientKey{address: networkOf("10.0.0.1:1")}, time.Now())
				if retry, rate := by.overRate(); retry <= 0 || rate != "--client-"+name {
					t.Errorf("the client may send again after %s, because of %q", retry, rate)
				}
				by.leave()
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

// A refusal names the rate that was exceeded, and not the other one, which may have no limit. If both
// were, it names the one for which the client has to wait longer.
func TestRefusalNamesItsRate(t *testing.T) {
	for _, test := range []struct {
		limits         rates
		requests, sent int
		want, without  string
	}{
		{rates{requests: 10}, 10, 1 << 20, requestRate, byteRate},
		{rates{bytes: 1000}, 10, 1000, byteRate, requestRate},
		{rates{requests: 10, bytes: 1000}, 10, 100, requestRate, byteRate},
		{rates{requests: 10, bytes: 1000}, 10, 5000, byteRate, requestRate},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, &acknowledging{}, func(c *Config) {
				c.ClientRequests, c.ClientBytes = int(test.limits.requests), units.Base2Bytes(test.limits.bytes)
			})
			by := s.sharing.join(clientKey{name: "one"}, time.Now())
			defer by.leave()
			for range test.requests {
				if refused := s.overRate(by); refused != nil {
					t.Fatalf("%+v: refused too early: %s", test, refused.Detail)
				}
			}
			by.received(test.sent)
			refused := s.overRate(by)
			if refused == nil || refused.Reason != reasonShare || refused.Retry <= 0 {
				t.Fatalf("%+v: the refusal is %+v", test, refused)
			}
			if !strings.Contains(refused.Detail, test.want) || strings.Contains(refused.Detail, test.without) {
				t.Errorf("%+v: the refusal says %s", test, refused.Detail)
			}
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
