package pressure

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	kafkabus "github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/bus/kafka/embedded"
	"github.com/morphogenetic/oona/schemas/avro"
)

const (
	goMemory = 448 << 20    // GOMEMLIMIT
	resident = 498 << 20    // of which it is nine tenths
	memory   = goMemory / 4 // --max-memory-bytes
	small    = 0            // bytes of padding
	large    = 6 << 20
	inflates = 14 << 20
	loadTime = 7 * time.Second
)

// Clients that send more large bodies than there is memory for, that disconnect, or that trickle, do
// not harm those that send little. Ingest stays within its memory. When it ends meanwhile, every
// request that was accepted is on the bus or in the spool, once, and no other one.
func TestMoreThanTheMemory(t *testing.T) {
	binary := build(t)
	var down atomic.Bool
	broker, err := embedded.Start(t.Context(), embedded.Options{Control: func(_ *kfake.Cluster, r kmsg.Request) (kmsg.Response, error, bool) {
		if down.Load() && r.Key() == kmsg.Produce.Int16() {
			return nil, fmt.Errorf("the bus is down"), true
		}
		return nil, nil, false
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	topics, err := oona.NewTopics("pressure")
	if err != nil {
		t.Fatal(err)
	}
	b := kafkabus.New(kafkabus.Config{Brokers: broker.Addrs, ClientID: "test"}, slog.New(slog.DiscardHandler))
	if _, err := b.Apply(t.Context(), topics.Specs(2)); err != nil {
		t.Fatal(err)
	}
	l := newLoad()
	args := []string{
		"--brokers=" + broker.Addrs[0], "--prefix=pressure", "--instance=ingest-1", "--spool-directory=" + filepath.Join(t.TempDir(), "spool"),
		"--spool-after=1s", "--listen-access-file=" + l.accessFile(t),
	}
	p := start(t, binary, goMemory, args...)
	l.address, _ = p.addresses()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	end := l.play(ctx)

	var most float64
	for began := time.Now(); time.Since(began) < loadTime; time.Sleep(50 * time.Millisecond) {
		down.Store(time.Since(began) > loadTime/3 && time.Since(began) < loadTime*2/3)
		most = max(most, p.metric("oona_ingest_memory_bytes"))
	}
	waits, peak := p.metric("oona_ingest_memory_waits_total"), p.peak()
	if n := l.count("small", 0); n != 0 {
		t.Errorf("%d small requests were not answered", n)
	}
	took := p.terminate()
	stop()
	end()
	l.figures(t)
	t.Logf("%.0f MiB of %d were in use, %d MiB resident; %.0f waits for memory; the end took %s", most/(1<<20), memory>>20, peak>>20, waits, took.Round(time.Millisecond))

	l.occurred(t)
	if waits == 0 {
		t.Error("nobody waited for memory: the fault did not occur")
	}
	if most > memory || peak > resident {
		t.Errorf("ingest has used %.0f bytes of %d, and had %d of %d", most, memory, peak, resident)
	}
	found := l.onBus(t, b, topics.SeedMetrics)
	if l.missing(found) > 0 { // they are in the spool
		p = start(t, binary, goMemory, args...)
		p.await("spool", func() bool {
			found = l.onBus(t, b, topics.SeedMetrics)
			return l.missing(found) == 0
		})
		p.terminate()
		found = l.onBus(t, b, topics.SeedMetrics)
	}
	l.check(t, found)
}

// identity identifies a request, which has one frame.
type identity struct {
	producer oona.ProducerID
	sequence int64
}

// sender is what some clients do. Each has a token.
type sender struct {
	name    string
	clients int
	each    int // requests of a client at a time
	send    func(ctx context.Context, l *load, client string, id identity) (status int)
	pause   time.Duration
}

var senders = []sender{
	{"small", 6, 1, post(small), 10 * time.Millisecond},
	{"large", 8, 3, post(large), 50 * time.Millisecond},
	{"inflated", 2, 4, post(inflates), 50 * time.Millisecond},
	{"gone", 2, 3, disconnect, 20 * time.Millisecond},
	{"trickling", 1, 4, trickle, 50 * time.Millisecond},
}

// load is what all clients send, and the answers.
type load struct {
	address string
	client  *http.Client
	epoch   oona.Micros

	mu       sync.Mutex
	statuses map[identity]int
	counts   map[string]map[int]int // by name and status
}

func newLoad() *load {
	return &load{
		client:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}},
		epoch:    oona.MicrosOf(time.Now()),
		statuses: make(map[identity]int), counts: make(map[string]map[int]int),
	}
}

func tokenOf(client string) string { return "token-of-" + client }

// accessFile writes a file with the tokens of all clients.
func (l *load) accessFile(t *testing.T) (path string) {
	t.Helper()
	text := "identities:\n"
	for _, s := range senders {
		for i := range s.clients {
			client := fmt.Sprint(s.name, i)
			text += fmt.Sprintf("  - name: %s\n    tokens: [%x]\n    runs: [\"*\"]\n    producers: [\"*\"]\n    roles: [frames]\n", client, sha256.Sum256([]byte(tokenOf(client))))
		}
	}
	path = filepath.Join(t.TempDir(), "access.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// play lets all clients send until ctx ends or ingest does not answer any more. end waits for them.
func (l *load) play(ctx context.Context) (end func()) {
	var playing sync.WaitGroup
	for _, s := range senders {
		for i := range s.clients {
			client := fmt.Sprint(s.name, i)
			var sequence atomic.Int64
			for range s.each {
				playing.Go(func() {
					for ctx.Err() == nil {
						id := identity{oona.ProducerID(client), sequence.Add(1)}
						for status := http.StatusTooManyRequests; status == http.StatusTooManyRequests && ctx.Err() == nil; {
							status = s.send(ctx, l, client, id)
							l.note(s.name, id, status)
							bus.Pause(ctx, s.pause)
						}
					}
				})
			}
		}
	}
	return func() {
		playing.Wait()
		l.client.CloseIdleConnections()
	}
}

func (l *load) note(name string, id identity, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.statuses[id] = status
	if l.counts[name] == nil {
		l.counts[name] = make(map[int]int)
	}
	l.counts[name][status]++
}

// count returns how many requests of some clients had a status so far.
func (l *load) count(name string, status int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[name][status]
}

// frame returns a frame as JSON.
func (l *load) frame(id identity) string {
	return fmt.Sprintf(`{"run_id":"load","layer_id":"l","producer_id":%q,"producer_epoch":%d,"sequence":%d,"observed_at":%d,"seed_ids":[0],"states":["training"],"metrics":[{"name":"loss","values":[1]}]}`,
		id.producer, l.epoch, id.sequence, oona.MicrosOf(time.Now()))
}

var spaces = bytes.Repeat([]byte(" "), inflates)

// post sends a frame and so many spaces, compressed if these are the most. It returns 0 if there is no answer.
func post(padding int) func(context.Context, *load, string, identity) int {
	return func(ctx context.Context, l *load, client string, id identity) int {
		frame := l.frame(id)
		body, length, coding := io.MultiReader(strings.NewReader(frame), bytes.NewReader(spaces[:padding])), int64(len(frame)+padding), ""
		if padding == inflates {
			var packed bytes.Buffer
			w, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed) // the level exists
			_, _ = io.Copy(w, body)                              // a buffer takes everything
			_ = w.Close()
			body, length, coding = &packed, int64(packed.Len()), "gzip"
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.address+"/v1/frames", body)
		if err != nil {
			return 0
		}
		request.ContentLength = length
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", "Bearer "+tokenOf(client))
		if coding != "" {
			request.Header.Set("Content-Encoding", coding)
		}
		answer, err := l.client.Do(request)
		if err != nil {
			return 0
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return 0
		}
		return answer.StatusCode
	}
}

// open begins a request with a large body on a connection of its own.
func (l *load) open(client string, length int) (net.Conn, error) {
	conn, err := net.Dial("tcp", l.address)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(conn, "POST /v1/frames HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", tokenOf(client), length)
	return conn, err
}

// disconnect sends the half of a large body or, every other time, all of it, and resets the connection.
func disconnect(_ context.Context, l *load, client string, id identity) int {
	frame := l.frame(id)
	conn, err := l.open(client, len(frame)+large)
	if err != nil {
		return 0
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, frame)                     // ingest may have refused it
	_, _ = conn.Write(spaces[:large/int(1+id.sequence%2)]) // as above
	_ = conn.(*net.TCPConn).SetLinger(0)
	return 0
}

// trickle sends a byte now and then.
func trickle(ctx context.Context, l *load, client string, id identity) int {
	frame := l.frame(id)
	conn, err := l.open(client, len(frame)+large)
	if err != nil {
		return 0
	}
	defer conn.Close()
	sending, stop := context.WithCancel(ctx)
	var trickling sync.WaitGroup
	trickling.Go(func() {
		for i := 0; bus.Pause(sending, 300*time.Millisecond); i++ {
			if _, err := conn.Write([]byte{frame[i%len(frame)]}); err != nil {
				return
			}
		}
	})
	defer trickling.Wait()
	defer stop()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var status int
	if _, err := fmt.Fscanf(conn, "HTTP/1.1 %d", &status); err != nil {
		return 0
	}
	return status
}

func (l *load) figures(t *testing.T) {
	for _, s := range senders {
		t.Logf("%s: %v", s.name, l.counts[s.name])
	}
}

// occurred checks that the clients have done what they should, and that those that send little were
// not refused.
func (l *load) occurred(t *testing.T) {
	t.Helper()
	accepted := func(name string) int { return l.counts[name][http.StatusOK] + l.counts[name][http.StatusAccepted] }
	for status, n := range l.counts["small"] {
		if status != http.StatusOK && status != http.StatusAccepted && status != 0 {
			t.Errorf("%d small requests were answered %d", n, status)
		}
	}
	if accepted("small") == 0 || l.counts["small"][http.StatusAccepted] == 0 {
		t.Errorf("small requests were answered %v: the bus was not down", l.counts["small"])
	}
	if accepted("large") == 0 || accepted("inflated") == 0 || l.counts["large"][http.StatusTooManyRequests] == 0 {
		t.Errorf("large requests were answered %v and %v", l.counts["large"], l.counts["inflated"])
	}
	if l.counts["trickling"][http.StatusRequestTimeout] == 0 || l.counts["gone"][0] == 0 {
		t.Errorf("those that trickle were answered %v, %d have disconnected", l.counts["trickling"], l.counts["gone"][0])
	}
}

// onBus returns how often the topic has each request.
func (l *load) onBus(t *testing.T, b bus.Bus, topic string) map[identity]int {
	t.Helper()
	extents, err := b.Extents(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[identity]int)
	var decoder avro.FrameDecoder
	var f oona.Frame
	for partition, extent := range extents[topic] {
		err := b.Read(t.Context(), topic, bus.Range{Partition: int32(partition), From: extent.Start, End: extent.End}, func(m *message.Message) error {
			if _, err := decoder.Decode(m.Payload, &f); err != nil {
				return err
			}
			found[identity{f.Producer, f.Sequence}]++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// missing returns how many accepted requests are not on the bus.
func (l *load) missing(found map[identity]int) (n int) {
	for id, status := range l.statuses {
		if status/100 == 2 && found[id] == 0 {
			n++
		}
	}
	return n
}

// check compares the answers with what is on the bus.
func (l *load) check(t *testing.T, found map[identity]int) {
	t.Helper()
	for id, n := range found {
		switch status, sent := l.statuses[id]; {
		case !sent:
			t.Errorf("%+v is on the bus, and was not sent", id)
		case status/100 == 4:
			t.Errorf("%+v is on the bus, and was answered %d", id, status)
		case n > 1:
			t.Errorf("%+v is %d times on the bus, and was answered %d", id, n, status)
		}
	}
	if n := l.missing(found); n > 0 {
		t.Errorf("%d accepted requests are missing", n)
	}
}
