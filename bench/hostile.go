package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/access"
	"github.com/morphogenetic/oona/schemas/avro"
)

// The load of the clients that are not hostile: trainers of ten layers that send the
// frames of a step in one request, each with a token and a connection of its own.
const (
	producers     = 200
	producerEvery = 500 * time.Millisecond // between two requests of a producer
	producerSends = 10                     // frames of a request
	phase         = 6 * time.Second        // for which the load is measured, with and without a hostile client
	warmUp        = 500 * time.Millisecond // at the beginning of a phase, which is not measured
	// attackStarts is how long a hostile client attacks before it is measured.
	attackStarts = time.Second
)

var (
	quietMiddle = figure{name: "producers_p50_ms", unit: "ms", about: "time from when a request is due until its answer; 200 producers, two requests of 10 frames per second each"}
	quietTail   = figure{name: "producers_p99_ms", unit: "ms", about: "the 99th percentile of a second, of all seconds of all rounds, because a stop of a virtual machine decides that of a phase"}
)

// hostile are the figures of an attack.
func (a attack) figures() (middle, tail, ratio, refused, did figure) {
	name := "producers_beside_" + a.name
	return figure{name: name + "_p50_ms", unit: "ms", about: "the same as producers_p50_ms beside a hostile client: " + a.about},
		figure{name: name + "_p99_ms", unit: "ms", about: "the same, 99th percentile of a second"},
		figure{name: name + "_over_quiet", unit: "x", goal: 2, below: true, about: "the median of these over the median without a hostile client, each of all seconds of all rounds"},
		figure{name: name + "_refused", unit: "requests", about: "requests of the others that did not get 200"},
		figure{name: a.name + "_per_second", unit: "1/s", about: "what the hostile client did: connections that were closed (slow_...), MiB that were sent (huge_body), or answers"}
}

// hostile takes the figures of hostile clients. They take long, so they must be asked for.
func (b *bench) hostile(ctx context.Context, w *wire) error {
	if !slices.Contains(b.cfg.Only, "hostile") {
		return nil
	}
	return w.onTopics(ctx, func(ctx context.Context, topics oona.Topics) error {
		return w.measureHostile(ctx, topics, b.cfg.Hostile, b.all)
	})
}

// measureHostile measures the producers with and without each hostile client.
func (w *wire) measureHostile(ctx context.Context, topics oona.Topics, only []string, into *figures) (err error) {
	dir, err := os.MkdirTemp("", "oona-bench-")
	if err != nil {
		return fmt.Errorf("make a directory for the access file: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "access.yaml")
	tokens, err := writeTokens(file, producers+1)
	if err != nil {
		return err
	}
	server, err := w.begin(ctx, ingestFlag, topics.SeedMetrics, "--ingest-access", file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.end()) }()
	runtime.GC()
	others, err := newCrowd(ctx, server.said, tokens[:producers])
	if err != nil {
		return err
	}
	defer others.close()
	taken := slices.DeleteFunc(slices.Clone(attacks), func(a attack) bool {
		return len(only) > 0 && !slices.Contains(only, a.name)
	})
	for _, a := range taken {
		if err := w.withAndWithout(ctx, a, others, server.said, tokens[producers], into); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
	}
	for _, a := range taken { // only now, as what is below them has values of each attack
		_, tail, ratio, _, _ := a.figures()
		into.putOfMedians(w.named(ratio), w.named(tail), w.named(quietTail))
	}
	return nil
}

// writeTokens writes an access file with n identities, and returns their tokens.
func writeTokens(file string, n int) (tokens []string, err error) {
	var text strings.Builder
	text.WriteString("identities:\n")
	for i := range n {
		token := access.NewToken()
		tokens = append(tokens, token)
		fmt.Fprintf(&text, "  - {name: client-%d, tokens: [%s], runs: [\"*\"], producers: [\"*\"], roles: [frames]}\n", i, access.HashOf(token))
	}
	return tokens, os.WriteFile(file, []byte(text.String()), 0o600)
}

// withAndWithout measures the load, and again beside a hostile client.
func (w *wire) withAndWithout(ctx context.Context, a attack, others *crowd, address, token string, into *figures) error {
	quiet, refused, err := others.measure(ctx)
	if err != nil {
		return err
	}
	if len(refused) > 0 {
		return fmt.Errorf("%d requests were refused before the attack: %w", len(refused), refused[0])
	}
	quiet.take(w.named(quietMiddle), w.named(quietTail), into)
	attacker, err := beginIdle(ctx, attackFlag, a.name, "--attack-at", address, "--attack-token", token)
	if err != nil {
		return err
	}
	began := time.Now()
	time.Sleep(attackStarts)
	beside, refused, err := others.measure(ctx)
	took := time.Since(began)
	did, ended := attacker.endWith()
	if err = errors.Join(err, ended); err != nil {
		return err
	}
	count, err := strconv.ParseFloat(did, 64)
	if err != nil {
		return fmt.Errorf("the hostile client said %q: %w", did, err)
	}
	perSecond := count / took.Seconds()
	if perSecond < a.least {
		return fmt.Errorf("the attack did not take place: the hostile client did %.1f things a second, which should be at least %g", perSecond, a.least)
	}
	middle, tail, _, refusedOthers, rate := a.figures()
	if len(refused) > 0 {
		w.logger.Error("requests of the others were refused", "attack", a.name, "requests", len(refused), "the first", refused[0])
	}
	beside.take(w.named(middle), w.named(tail), into)
	into.take(w.named(refusedOthers), float64(len(refused)))
	into.take(w.named(rate), perSecond)
	time.Sleep(attackStarts) // what is left of it ends
	return nil
}

// crowd is the producers, with their connections.
type crowd struct {
	address  string
	clients  []*client
	sequence int64
}

// again replaces the connection of a producer.
func (l *crowd) again(ctx context.Context, i int) (*client, error) {
	old := l.clients[i]
	_ = old.Close()
	c, err := dial(ctx, l.address)
	if err != nil {
		return nil, err
	}
	c.token = old.token
	l.clients[i] = c
	return c, nil
}

func newCrowd(ctx context.Context, address string, tokens []string) (*crowd, error) {
	l := &crowd{address: address}
	for _, token := range tokens {
		c, err := dial(ctx, address)
		if err != nil {
			l.close()
			return nil, err
		}
		c.token = token
		l.clients = append(l.clients, c)
	}
	return l, nil
}

func (l *crowd) close() {
	for _, c := range l.clients {
		_ = c.Close()
	}
}

// seconds has how long requests took, by the second in which they were due.
type seconds [phase / time.Second][]time.Duration

// take adds the median and the 99th percentile of each second to figures, in milliseconds.
func (s *seconds) take(middle, tail figure, into *figures) {
	for _, second := range s {
		into.take(middle, percentile(second, 50))
		into.take(tail, percentile(second, 99))
	}
}

// measure runs the load for a phase, and returns how long requests took from when they
// were due until they were answered, and the answers other than 200.
func (l *crowd) measure(ctx context.Context) (took *seconds, refused []error, err error) {
	took = new(seconds)
	template := smallFrame()
	began := time.Now()
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	first := l.sequence
	rounds := int((warmUp + phase) / producerEvery)
	l.sequence += int64(rounds * producerSends)
	for i, c := range l.clients {
		group.Go(func() error {
			f := template
			f.Layer, f.Producer = oona.LayerID(fmt.Sprintf("layer.%d", i)), oona.ProducerID(fmt.Sprintf("producer-%d", i))
			offset := producerEvery * time.Duration(i) / time.Duration(len(l.clients))
			for n := range rounds {
				c.body = c.body[:0]
				for j := range producerSends {
					f.Sequence = first + int64(n*producerSends+j)
					c.body = avro.AppendFrame(c.body, &f)
				}
				due := began.Add(offset + time.Duration(n)*producerEvery)
				if time.Sleep(time.Until(due)); ctx.Err() != nil {
					return ctx.Err()
				}
				err := c.post()
				notTaken, isAnswer := errors.AsType[*answerError](err)
				if err != nil && !isAnswer {
					return fmt.Errorf("producer %d, request %d: %w", i, n, err)
				}
				if isAnswer && notTaken.closes {
					if c, err = l.again(ctx, i); err != nil {
						return err
					}
				}
				into := due.Sub(began) - warmUp
				if into < 0 {
					continue
				}
				mu.Lock()
				second := &took[min(int(into/time.Second), len(took)-1)]
				*second = append(*second, time.Since(due))
				if isAnswer {
					refused = append(refused, notTaken)
				}
				mu.Unlock()
			}
			return nil
		})
	}
	err = group.Wait()
	return took, refused, err
}
