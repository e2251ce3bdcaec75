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

// trainer sends frames like a producer: in order, and each request again until it is
// acknowledged.
type trainer struct {
	url      string
	run      oona.RunID
	producer oona.ProducerID
	layers   int           // number of layers, which have frames in turn
	seeds    int           // number of seeds per layer
	rate     float64       // frames per second
	skew     time.Duration // skew of its clock
	disorder time.Duration // how much frames are out of order
	timeout  time.Duration // timeout of a request; 0 means 15 s
	brief    bool          // whether each request has its own connection
	raw      *rawProducer  // sends to the raw topic; nil to send over HTTP
}

const (
	pace    = 50 * time.Millisecond  // pause between requests
	retry   = 200 * time.Millisecond // pause after a request that was not acknowledged
	perCall = 500                    // limit of frames in a request
)

// play sends until stop is closed. It continues to send the current request until it is
// acknowledged or ctx ends.
func (tr trainer) play(ctx context.Context, a *acks, stop <-chan struct{}) {
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
			owed = min(owed+tr.rate*now.Sub(last).Seconds(), max(1, tr.rate/2), perCall) // a trainer that was delayed does not catch up
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
			a.note(id, body[mark:])
			ids = append(ids, id)
		}
		switch {
		case len(ids) == 0:
		case tr.raw != nil:
			tr.raw.publish(ctx, body, ids, a)
		default:
			post(ctx, client, tr.url, body, ids, a)
		}
	}
}

// post sends a request until it is acknowledged.
func post(ctx context.Context, client *http.Client, url string, body []byte, ids []identity, a *acks) {
	for {
		status := postOnce(ctx, client, url, body)
		a.answer(status, ids)
		if status/100 == 2 || !bus.Pause(ctx, retry) {
			return
		}
	}
}

// postOnce returns the status of the answer, or 0 if there was no answer.
func postOnce(ctx context.Context, client *http.Client, url string, body []byte) int {
	return postTo(ctx, client, url+"/v1/frames", body)
}

// postTo is postOnce for a whole URL.
func postTo(ctx context.Context, client *http.Client, url string, body []byte) int {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", url, err))
	}
	request.Header.Set("Content-Type", "application/avro")
	response, err := client.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body) // only the status matters
	return response.StatusCode
}

// frame makes a frame of small integers, so that sums are exact in any order.
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
