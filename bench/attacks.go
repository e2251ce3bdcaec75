package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// attackFlag makes this program a hostile client of ingest until its stdin is closed. Then
// it prints how much it has done.
const attackFlag = "--attack"

// attack is one way to be hostile.
type attack struct {
	name        string
	connections int
	// on uses a connection until the connection is closed or ctx ends. It calls done after each
	// step of the attack.
	on func(ctx context.Context, c *client, done func()) error
	// least is the number of steps per second that proves that the attack takes place.
	least float64
	about string
}

const (
	mebibyte = 1 << 20
	// hostileBody is the maximum size of a body that ingest accepts.
	hostileBody = 8 * mebibyte
)

// attacks are all ways to be hostile.
var attacks = []attack{
	{"nothing", 0, nil, 0, "no attack; it shows how much the ratio varies by itself"},
	{"slow_body", 500, slowBody, 5, "500 connections with bodies of 8 MiB that arrive slowly, byte by byte; half of the connections send all but the end of the body quickly before"},
	{"slow_header", 500, slowHeader, 5, "500 connections whose headers arrive slowly, byte by byte"},
	{"huge_body", 64, hugeBody, 1, "64 connections that send bodies of 64 MiB, with a Content-Length or in chunks"},
	{"bombs", 64, bombs, 1, "64 connections that send bodies of 30 kB that gzip decompresses to 17 MiB of frames"},
	{"bad_frames", 64, badFrames, 20, "64 connections that send requests with 40 valid frames and an invalid one"},
	{"flood", 256, flood, 50, "256 connections that send valid requests without pauses"},
	{"strangers", 256, strangers, 5, "256 connections that send requests with a wrong token, without pauses"},
	{"connections", 64, reconnect, 5, "64 loops that connect, send a request, and close the connection"},
}

func attackNamed(name string) (attack, error) {
	for _, a := range attacks {
		if a.name == name {
			return a, nil
		}
	}
	return attack{}, fmt.Errorf("no attack has the name %q", name)
}

// attackUntilTold runs in the process of the hostile client. It attacks until its stdin is closed.
func attackUntilTold(ctx context.Context, name, address, token string) error {
	a, err := attackNamed(name)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var done atomic.Int64
	ended := make(chan error, 1)
	go func() { ended <- a.run(ctx, address, token, func() { done.Add(1) }) }()
	if err := await("attacks"); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	stop()
	if err := <-ended; err != nil {
		return err
	}
	_, err = fmt.Println(done.Load())
	return err
}

// run attacks until ctx ends. It replaces connections that ingest closes.
func (a attack) run(ctx context.Context, address, token string, done func()) error {
	var attackers errgroup.Group
	for n := range a.connections {
		attackers.Go(func() error {
			for ctx.Err() == nil {
				c, err := dial(ctx, address)
				if err != nil {
					time.Sleep(50 * time.Millisecond) // perhaps no local port is free for a while
					continue
				}
				c.token, c.index = token, n
				closed := context.AfterFunc(ctx, func() { _ = c.Close() })
				_ = a.on(ctx, c, done) // ingest may close the connection at any time
				closed()
				_ = c.Close()
			}
			return nil
		})
	}
	return attackers.Wait()
}

// slowBody calls done when ingest has closed or answered a connection.
func slowBody(ctx context.Context, c *client, done func()) error {
	defer done()
	if _, err := c.Write(c.header(nil, "Content-Length: %d\r\n\r\n", hostileBody)); err != nil {
		return err
	}
	if c.index%2 == 0 {
		piece := make([]byte, 64<<10)
		for range hostileBody/len(piece) - 1 {
			if _, err := c.Write(piece); err != nil {
				return err
			}
		}
	}
	go trickle(ctx, c)
	_, err := c.answers.ReadByte()
	return err
}

// slowHeader calls done when ingest has closed or answered a connection.
func slowHeader(ctx context.Context, c *client, done func()) error {
	defer done()
	if _, err := c.Write(c.header(nil, "X-Slow: ")); err != nil {
		return err
	}
	go trickle(ctx, c)
	_, err := c.answers.ReadByte()
	return err
}

// trickle sends a byte every tenth of a second until the connection is closed.
func trickle(ctx context.Context, c *client) {
	for ctx.Err() == nil {
		if _, err := c.Write([]byte{'x'}); err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// hugeBody calls done for each MiB that was sent.
func hugeBody(ctx context.Context, c *client, done func()) error {
	chunked := c.index%2 == 0
	kind := "Content-Length: 67108864\r\n\r\n"
	if chunked {
		kind = "Transfer-Encoding: chunked\r\n\r\n"
	}
	if _, err := c.Write(c.header(nil, "%s", kind)); err != nil {
		return err
	}
	piece := make([]byte, mebibyte)
	if chunked {
		piece = fmt.Appendf(nil, "100000\r\n%s\r\n", piece)
	}
	for ctx.Err() == nil {
		if _, err := c.Write(piece); err != nil {
			return err
		}
		done()
	}
	return nil
}

// bombs calls done for each answer, as do the attacks below.
func bombs(ctx context.Context, c *client, done func()) error {
	f := smallFrame()
	one := avro.AppendFrame(nil, &f)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	for range 17 * mebibyte / len(one) {
		if _, err := z.Write(one); err != nil {
			return err
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	request := append(c.header(nil, "Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", packed.Len()), packed.Bytes()...)
	return c.repeat(ctx, request, done)
}

func badFrames(ctx context.Context, c *client, done func()) error {
	f := smallFrame()
	var body []byte
	for range 40 {
		body = avro.AppendFrame(body, &f)
		f.Sequence++
	}
	f.Layer = "not a valid name"
	body = avro.AppendFrame(body, &f)
	return c.repeat(ctx, append(c.header(nil, "Content-Length: %d\r\n\r\n", len(body)), body...), done)
}

func flood(ctx context.Context, c *client, done func()) error {
	return c.repeat(ctx, c.flooding(), done)
}

// flooding returns a request with a small frame.
func (c *client) flooding() []byte {
	f := smallFrame()
	f.Run, f.Layer = "flood", oona.LayerID(fmt.Sprintf("layer.%d", c.index))
	f.Seeds, f.States, f.Metrics = f.Seeds[:1], f.States[:1], nil
	body := avro.AppendFrame(nil, &f)
	return append(c.header(nil, "Content-Length: %d\r\n\r\n", len(body)), body...)
}

func strangers(ctx context.Context, c *client, done func()) error {
	c.token = "nobody"
	return c.repeat(ctx, c.flooding(), done)
}

func reconnect(_ context.Context, c *client, done func()) error {
	if linger, ok := c.Conn.(*net.TCPConn); ok {
		_ = linger.SetLinger(0) // the local port is free at once, and not only after TIME_WAIT
	}
	return c.once(c.flooding(), done)
}

// repeat sends a request again and again, as soon as there is an answer, until ingest
// closes the connection.
func (c *client) repeat(ctx context.Context, request []byte, done func()) error {
	for ctx.Err() == nil {
		if err := c.once(request, done); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) once(request []byte, done func()) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	answer, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return err
	}
	done()
	_, err = io.Copy(io.Discard, answer.Body)
	return errors.Join(err, answer.Body.Close())
}
