package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/schemas/avro"
)

// spoolOutage is longer than any outage of ingest during which ticks are written. With a
// shorter idle horizon, the windows would close without the frames of the spool.
const spoolOutage = 45 * time.Second

// spooling is an ingest with a spool, which is killed and started again at the same address.
type spooling struct {
	*world
	dir     string
	brokers string
	listen  string
	more    []string
}

func (s *spooling) start() {
	s.Helper()
	if s.listen == "" {
		s.listen = "127.0.0.1:0"
	}
	args := []string{
		"--brokers", s.brokers, "--prefix", s.prefix, "--admin-address", "127.0.0.1:0", "--log-format", "json", "--listen", s.listen,
		"--spool-directory", s.dir, "--spool-after", "500ms", "--spool-headroom", "0MiB",
	}
	s.ingest = launch(s.T, "ingest", append(args, s.more...)...)
	s.ingest.awaitReady(s.T, s.ctx)
	s.listen = strings.TrimPrefix(s.url(), "http://")
}

// spooled returns the value of a metric of the spool.
func (s *spooling) spooled(name string) float64 { return s.ingest.metrics()["oona_ingest_spool_"+name] }

func (s *spooling) awaitDrained() {
	s.Helper()
	s.await("the spool to be sent", func() bool {
		m := s.ingest.metrics()
		records, ok := m["oona_ingest_spool_records"]
		return ok && records == 0
	})
}

// onlyAnswers checks the statuses of all answers.
func (w *world) onlyAnswers(allowed ...int) {
	w.Helper()
	known := make(map[int]bool)
	for _, status := range allowed {
		known[status] = true
	}
	for status, n := range w.acks.answers {
		if !known[status] {
			w.Errorf("%d requests were answered %d", n, status)
		}
	}
}

// inOrder checks that the log has the frames of each producer in order, in each partition,
// apart from repeats.
func (w *world) inOrder(r *result) {
	w.Helper()
	type source struct {
		partition int32
		run       oona.RunID
		producer  oona.ProducerID
	}
	var decoder avro.FrameDecoder
	var f oona.Frame
	for p, records := range r.log {
		last := make(map[source]int64)
		seen := make(map[identity]bool)
		for i := range records {
			if records[i].headers[oona.HeaderRecord] != "" {
				continue
			}
			if _, err := decoder.Decode(records[i].value, &f); err != nil {
				w.Fatal(err)
			}
			from := source{p, f.Run, f.Producer}
			before, begun := last[from]
			switch {
			case seen[identityOf(&f)]:
			case begun && f.Sequence < before:
				w.Errorf("frame %d of %s/%s comes after frame %d", f.Sequence, f.Run, f.Producer, before)
				return
			default:
				last[from] = f.Sequence
			}
			seen[identityOf(&f)] = true
		}
	}
}

// flood starts clients. Each has its own run, and sends one frame after the other as fast as they are
// accepted. finish stops the clients, and returns when all their frames are acknowledged.
func (w *world) flood(clients, seeds int) (finish func()) {
	stop := make(chan struct{})
	var sending sync.WaitGroup
	url := w.url()
	for i := range clients {
		sending.Go(func() {
			client := &http.Client{Timeout: 15 * time.Second}
			defer client.CloseIdleConnections()
			random := rand.New(rand.NewPCG(9, uint64(i)))
			tr := trainer{run: oona.RunID(fmt.Sprintf("flood-%d", i)), producer: "one", layers: 1, seeds: seeds}
			epoch := oona.MicrosOf(time.Now())
			for sequence := int64(0); ; sequence++ {
				select {
				case <-stop:
					return
				default:
				}
				f := tr.frame(random, epoch, sequence)
				body := avro.AppendFrame(nil, f)
				w.acks.note(identityOf(f), body)
				post(w.ctx, client, url, body, []identity{identityOf(f)}, w.acks)
				if !bus.Pause(w.ctx, 3*time.Millisecond) {
					return
				}
			}
		})
	}
	return sync.OnceFunc(func() {
		close(stop)
		sending.Wait()
	})
}

// Row 6 with a spool. Without two of three brokers, ingest answers 202, and never 200. When the
// brokers are back, the frames of the spool are sent in order, and everything continues.
func twoBrokersDownSpool(w *world) {
	w.windows.IdleHorizon = spoolOutage
	s := &spooling{world: w, dir: w.TempDir(), brokers: w.brokers}
	s.start()
	w.startWorker()
	finish := w.train(w.pair("run-a", 200)...)
	w.pause(3 * time.Second)
	leader := kafka.leader(w.T, w.ctx, w.topics.SeedMetrics, 0)
	defer kafka.recover(w.T, w.ctx) // even if the scenario fails
	for _, id := range []int{leader, leader%3 + 1} {
		if err := kafka.Kill(id); err != nil {
			w.Fatal(err)
		}
	}
	w.pause(500 * time.Millisecond) // for answers in flight
	before := w.acks.answered(200)
	w.await("requests to be spooled", func() bool { return w.acks.answered(202) >= 100 })
	if now := w.acks.answered(200); now != before {
		w.Errorf("%d requests were answered 200 with one broker of three", now-before)
	}
	spooled := s.spooled("records")
	kafka.recover(w.T, w.ctx)
	s.awaitDrained()
	after := w.acks.answered(200)
	w.await("frames to go to the bus again", func() bool { return w.acks.answered(200) > after+40 })
	finish()
	s.awaitDrained()
	w.stop()
	w.figure("%.0f requests in the spool, %d answered 202, %d answered 503", spooled, w.acks.answered(202), w.acks.answered(503))
	w.onlyAnswers(200, 202, 503)
	r := w.check()
	w.inOrder(r)
	w.nothingAside(r)
}

// cutOff starts ingest with a spool on a separate network. The network breaks all connections to the
// brokers until heal is called.
func (w *world) cutOff(more ...string) (*spooling, *network) {
	w.Helper()
	w.windows.IdleHorizon = spoolOutage
	net := w.startNetwork()
	s := &spooling{world: w, dir: w.TempDir(), brokers: net.addresses(), more: more}
	s.start()
	w.startWorker()
	return s, net
}

// Row 9. Ingest is killed while it writes to its spool for many clients at the same time. In the end,
// every frame that was answered with 2xx is on the bus.
func killedInGroupCommit(w *world) {
	s, net := w.cutOff()
	finish := w.flood(16, 64)
	w.pause(time.Second)
	net.sever(torn, 1, 2, 3)
	const kills = 6
	written := 0
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 9))
	for range kills {
		before := w.acks.answered(202)
		w.await("frames to be spooled", func() bool { return w.acks.answered(202) > before+200 })
		w.pause(time.Duration(random.IntN(100)) * time.Millisecond)
		s.ingest.kill(w.T)
		listing := w.listSpool(s.dir)
		for _, f := range listing.Files {
			if f.Torn > 0 {
				written++
			}
		}
		s.start()
	}
	cut := w.acks.answered(0)
	net.heal()
	s.awaitDrained()
	finish()
	s.awaitDrained()
	w.stop()
	w.figure("%d kills, %d torn writes, %d requests without an answer, %d answered 202", kills, written, cut, w.acks.answered(202))
	if cut < kills {
		w.Errorf("%d requests were cut off by %d kills: the fault did not occur", cut, kills)
	}
	w.onlyAnswers(0, 200, 202, 503)
	r := w.check()
	w.inOrder(r)
	w.nothingAside(r)
}

// spoolListing is what `oona spool ls --json` prints.
type spoolListing struct {
	Requests int64 `json:"requests"`
	Lost     int64 `json:"lost"`
	Files    []struct {
		Name  string `json:"name"`
		Bytes int64  `json:"bytes"`
		Torn  int64  `json:"torn"`
	} `json:"files"`
}

func (w *world) oonaSpool(args ...string) []byte {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	var out, messages bytes.Buffer
	cmd := exec.CommandContext(ctx, binaries["oona"], append([]string{"spool"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		w.Fatalf("oona spool %v: %v\n%s", args, err, &messages)
	}
	return out.Bytes()
}

func (w *world) listSpool(dir string) (l spoolListing) {
	w.Helper()
	if err := json.Unmarshal(w.oonaSpool("ls", "--json", dir), &l); err != nil {
		w.Fatal(err)
	}
	return l
}

// spooledFrames returns the frames in a spool.
func (w *world) spooledFrames(dir string) map[identity]bool {
	w.Helper()
	found := make(map[identity]bool)
	for text := range bytes.Lines(w.oonaSpool("cat", dir)) {
		var line struct {
			Frame struct {
				Run      oona.RunID      `json:"run_id"`
				Producer oona.ProducerID `json:"producer_id"`
				Epoch    oona.Micros     `json:"producer_epoch"`
				Sequence int64           `json:"sequence"`
			} `json:"frame"`
		}
		if err := json.Unmarshal(text, &line); err != nil {
			w.Fatal(err)
		}
		f := line.Frame
		found[identity{f.Run, f.Producer, f.Epoch, f.Sequence}] = true
	}
	return found
}

// Row 10. The bus cannot be reached until the spool is full, and ingest answers only 503. Then bytes in
// the middle of a file of the spool are changed while ingest is stopped. The frames in the damaged
// records are lost and counted. All other frames that were answered with 2xx are on the bus in the end.
func spoolFullAndCorrupt(w *world) {
	s, net := w.cutOff("--spool-bytes", "64MiB", "--spool-rate", "16MiB")
	finish := w.flood(16, 4000) // frames of 40 KB
	w.pause(time.Second)
	net.sever(torn, 1, 2, 3)
	w.await("the spool to be full", func() bool {
		return s.ingest.metrics()[`oona_ingest_rejected_total{reason="spool-full"}`] > 0
	})
	w.pause(time.Second) // for answers in flight
	before := w.acks.acknowledged()
	refused := w.acks.answered(503)
	w.await("requests to be refused", func() bool { return w.acks.answered(503) >= refused+32 })
	if now := w.acks.acknowledged(); now != before {
		w.Errorf("%d frames were acknowledged with a full spool", now-before)
	}
	s.ingest.kill(w.T)
	lost := w.damage(s.dir)
	s.start()
	net.heal()
	s.awaitDrained()
	counted := s.spooled("lost_records_total")
	finish()
	s.awaitDrained()
	w.stop()
	w.figure("%d requests refused, %d answered 202, %d lost by damage", w.acks.answered(503), w.acks.answered(202), lost)
	if counted != float64(lost) {
		w.Errorf("ingest has counted %v lost records, and %d are damaged", counted, lost)
	}
	w.onlyAnswers(0, 200, 202, 503)
	r := w.check()
	w.inOrder(r)
	w.nothingAside(r)
}

// damage changes bytes in the middle of a spool's first file. It returns the number of lost frames,
// which may be missing in the log.
func (w *world) damage(dir string) int {
	w.Helper()
	had := w.spooledFrames(dir)
	first := w.listSpool(dir).Files[0]
	file, err := os.OpenFile(filepath.Join(dir, first.Name), os.O_RDWR, 0)
	if err != nil {
		w.Fatal(err)
	}
	junk := make([]byte, 100)
	for i := range junk {
		junk[i] = byte(rand.Uint32())
	}
	if _, err := file.WriteAt(junk, first.Bytes/2); err != nil {
		w.Fatal(err)
	}
	if err := file.Close(); err != nil {
		w.Fatal(err)
	}
	has := w.spooledFrames(dir)
	lost := 0
	for id := range had {
		if !has[id] {
			lost++
			w.acks.unacknowledge(id)
		}
	}
	if lost < 1 || lost > 2 || w.listSpool(dir).Lost != int64(lost) {
		w.Fatalf("the damage has cost %d of %d frames; the listing has %d", lost, len(had), w.listSpool(dir).Lost)
	}
	return lost
}
