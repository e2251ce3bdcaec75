package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/internal/loadgen"
)

// runs are the training runs that send frames through the whole test. Each is a client of
// the Service of ingest, and begins with another pod.
var runs = []oona.RunID{"e2e-a", "e2e-b"}

// load sends frames until it is stopped.
type load struct {
	players []*loadgen.Player
	stop    context.CancelFunc
	ended   chan error
}

func (w *world) startLoad(t *testing.T) error {
	log, err := os.Create(filepath.Join(w.dir, w.loadLog()))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &load{stop: stop, ended: make(chan error, len(runs))}
	for i, run := range runs {
		player, err := w.player(run, i, log)
		if err != nil {
			stop()
			return err
		}
		l.players = append(l.players, player)
	}
	for _, player := range l.players {
		go func() {
			_, err := player.Run(ctx)
			l.ended <- err
		}()
	}
	w.load = l
	t.Cleanup(stop)
	return nil
}

func (w *world) player(run oona.RunID, first int, log io.Writer) (*loadgen.Player, error) {
	config := loadgen.DefaultConfig()
	config.URL = "https://" + ingestHost
	config.Run = run
	config.Synthetic = loadgen.Synthetic{Layers: 6, Seeds: 100, Rate: 30, Producers: 2, Seed: uint64(first) + 1}
	config.RequestTimeout = 5 * time.Second
	config.Logger = slog.New(slog.NewTextHandler(log, nil)).With("run", run)
	follow := &service{client: w.client, namespace: w.namespace, name: release + "-ingest", first: first}
	config.Client = &http.Client{Transport: authorized{&http.Transport{DialContext: follow.dial, TLSClientConfig: w.tls}}}
	return loadgen.New(config)
}

// finish stops the load, and returns the frames that each run has sent. All of them are
// acknowledged.
func (l *load) finish() (map[oona.RunID]int64, error) {
	l.stop()
	var errs []error
	for range l.players {
		if err := <-l.ended; !errors.Is(err, context.Canceled) {
			errs = append(errs, fmt.Errorf("the load ended by itself: %w", err))
		}
	}
	sent := make(map[oona.RunID]int64)
	for i, player := range l.players {
		counts := player.Counts()
		sent[runs[i]] = counts.Sent
		if counts.Sent == 0 || counts.Acknowledged != counts.Sent {
			errs = append(errs, fmt.Errorf("run %s sent %d frames; %d are acknowledged, %d refused", runs[i], counts.Sent, counts.Acknowledged, counts.Refused))
		}
	}
	return sent, errors.Join(errs...)
}

// counts returns the sums of all runs so far.
func (l *load) counts() (sum loadgen.Counts) {
	for _, player := range l.players {
		c := player.Counts()
		sum.Sent += c.Sent
		sum.Acknowledged += c.Acknowledged
		sum.Retries += c.Retries
		sum.Behind = max(sum.Behind, c.Behind)
	}
	return sum
}
