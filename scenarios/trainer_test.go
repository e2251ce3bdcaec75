package scenarios

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// trainer sends frames as one producer does: in order, each request again until
// it is acknowledged.
type trainer struct {
	url      string
	run      oona.RunID
	producer oona.ProducerID
	layers   int           // frames are of each in turn
	seeds    int           // of a layer
	rate     float64       // frames a second
	skew     time.Duration // of its clock
	disorder time.Duration // how far frames are out of order
	timeout  time.Duration // of a request; 0: 15 s
	brief    bool          // a connection for each request
	raw      *rawProducer  // sends to the raw topic; nil: over HTTP
}

const (
	pace    = 50 * time.Millisecond  // between requests
	retry   = 200 * time.Millisecond // after a request that was not acknowledged
	perCall = 500                    // frames of a request at most
)

// play sends until stop is closed; what is in hand then is still sent until it
// is acknowledged or ctx ends.
func (tr trainer) play(ctx context.Context, l *ledger, stop <-chan struct{}) {
	if tr.timeout == 0 {
		tr.timeout = 15 * time.Second
	}
	client := &http.Client{Timeout: tr.timeout, Transport: &http.Transport{DisableKeepAlives: tr.brief}}
	defer client.CloseIdleConnections()
	random := rand.New(rand.NewPCG(uint64(len(tr.run)), uint64(crc32.ChecksumIEEE([]byte(tr.producer)))))
	began := time.Now()
	epoch := oona.MicrosOf(began)
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	owed := 0.0
	for sequence, last := int64(0), began; ; {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			owed = min(owed+tr.rate*now.Sub(last).Seconds(), max(1, tr.rate/2), perCall) // a trainer that was held up does not catch up
			last = now
		}
		var body []byte
		var ids []identity
		for ; owed >= 1; owed-- {
			f := tr.frame(random, epoch, sequence)
			sequence++
			mark := len(body)
			body = avro.AppendFrame(body, f)
			id := identityOf(f)
			l.note(id, body[mark:])
			ids = append(ids, id)
		}
		switch {
		case len(ids) == 0:
		case tr.raw != nil:
			tr.raw.publish(ctx, body, ids, l)
		default:
			post(ctx, client, tr.url, body, ids, l)
		}
	}
}

// post sends a request again and again until it is acknowledged.
func post(ctx context.Context, client *http.Client, url string, body []byte, ids []identity, l *ledger) {
	for {
		status := postOnce(ctx, client, url, body)
		l.answer(status, ids)
		if status/100 == 2 || !bus.Pause(ctx, retry) {
			return
		}
	}
}

// postOnce returns the answer's status, 0 where there was none.
func postOnce(ctx context.Context, client *http.Client, url string, body []byte) int {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/frames", bytes.NewReader(body))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", url, err))
	}
	request.Header.Set("Content-Type", "application/avro")
	response, err := client.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body) // whatever becomes of the body: the status is the answer
	return response.StatusCode
}

// frame makes a frame of small whole numbers, so that sums in any order are
// exact.
func (tr trainer) frame(random *rand.Rand, epoch oona.Micros, sequence int64) *oona.Frame {
	at := time.Now().Add(tr.skew)
	if tr.disorder > 0 {
		at = at.Add(-time.Duration(random.Int64N(int64(tr.disorder))))
	}
	f := &oona.Frame{
		Run: tr.run, Layer: oona.LayerID(fmt.Sprintf("layer.%d", sequence%int64(tr.layers))),
		Producer: tr.producer, Epoch: epoch, Sequence: sequence, ObservedAt: oona.MicrosOf(at), Step: sequence,
	}
	loss := make([]float32, tr.seeds)
	improvement := make([]float32, tr.seeds)
	for i := range tr.seeds {
		f.Seeds = append(f.Seeds, oona.SeedID(i))
		f.States = append(f.States, oona.Training)
		loss[i] = float32(random.IntN(1000))
		improvement[i] = float32(random.IntN(2000) - 1000)
	}
	f.Metrics = []oona.Column{{Name: "reconstruction_loss", Values: loss}, {Name: "improvement", Values: improvement}}
	return f
}
