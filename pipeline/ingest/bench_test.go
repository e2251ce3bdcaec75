package ingest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// acknowledging is a bus that acknowledges everything and keeps nothing.
type acknowledging struct{}

func (*acknowledging) Close() error { return nil }

func (*acknowledging) Publish(context.Context, string, ...*message.Message) error { return nil }

// BenchmarkFrames measures the handler from the body of a request to the answer,
// without network and bus.
func BenchmarkFrames(b *testing.B) {
	for _, seeds := range []int{32, 1000} {
		f := goodFrame(0)
		manySeeds(seeds)(f)
		manyMetrics(8)(f)
		encoded := avro.AppendFrame(nil, f)
		for _, perRequest := range []int{1, 16} {
			body := bytes.Repeat(encoded, perRequest)
			b.Run(fmt.Sprintf("avro/seeds=%d/frames=%d", seeds, perRequest), func(b *testing.B) {
				benchmarkBody(b, mediaAvro, body, perRequest*seeds*8)
			})
		}
		b.Run(fmt.Sprintf("json/seeds=%d/frames=1", seeds), func(b *testing.B) {
			benchmarkBody(b, mediaJSON, jsonOf(f), seeds*8)
		})
	}
}

func benchmarkBody(b *testing.B, mediaType string, body []byte, samples int) {
	handler := newStage(b, &acknowledging{}, nil).Handler()
	r := httptest.NewRequest(http.MethodPost, "/v1/frames", nil)
	r.Header.Set("Content-Type", mediaType)
	reader := new(bytes.Reader)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		r.Body, r.ContentLength = nopCloser{reader}, int64(len(body))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(samples), "ns/sample")
}

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

func jsonOf(f *oona.Frame) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"run_id":%q,"layer_id":%q,"producer_id":%q,"producer_epoch":%d,"sequence":%d,"observed_at":%d,"seed_ids":[`,
		f.Run, f.Layer, f.Producer, f.Epoch, f.Sequence, f.ObservedAt)
	list(&b, len(f.Seeds), func(i int) { fmt.Fprint(&b, f.Seeds[i]) })
	b.WriteString(`],"states":[`)
	list(&b, len(f.States), func(i int) { fmt.Fprintf(&b, "%q", f.States[i]) })
	b.WriteString(`],"metrics":[`)
	list(&b, len(f.Metrics), func(i int) {
		fmt.Fprintf(&b, `{"name":%q,"values":[`, f.Metrics[i].Name)
		list(&b, len(f.Metrics[i].Values), func(j int) { fmt.Fprintf(&b, "%.7g", float64(j)/7) })
		b.WriteString("]}")
	})
	b.WriteString("]}")
	return b.Bytes()
}

func list(b *bytes.Buffer, n int, element func(i int)) {
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		element(i)
	}
}

// BenchmarkMemoryIsFreed measures how long it takes to free memory while many clients wait for more than
// any of them can give back, each besides other memory of its own.
func BenchmarkMemoryIsFreed(b *testing.B) {
	memory := newBudget(1 << 30).share(0)
	sharing := newSharing(.5, nil, nil, nil, nil)
	const clients = 1000
	for i := range clients {
		by := sharing.join(clientKey{name: fmt.Sprint(i)}, time.Now())
		published, waits := memory.lease(b.Context(), by), memory.lease(b.Context(), by)
		if !published.Grow(1) {
			b.Fatal("no memory is free")
		}
		waits.yields(func() { b.Error("one that waits is refused") })
		g := &growth{of: waits, n: smallLease + 1, ended: make(chan struct{})}
		waits.list(g.n)
		memory.line = append(memory.line, g)
	}
	memory.force(memory.room())
	for b.Loop() {
		memory.force(1)
		memory.free(1, nil)
	}
	if len(memory.line) != clients {
		b.Errorf("%d wait", len(memory.line))
	}
}
