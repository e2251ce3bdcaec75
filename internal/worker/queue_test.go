package worker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stalledReader is a log that is not read until reads is closed.
type stalledReader struct {
	reads chan struct{} // closed: it reads

	mu   sync.Mutex
	text bytes.Buffer
}

func (s *stalledReader) Write(line []byte) (int, error) {
	<-s.reads
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(line)
}

// A logger does not wait for the reader of the log. Lines that do not fit into the
// queue are counted, and errors still fit then.
func TestLogLinesDoNotWaitForTheirReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &stalledReader{reads: make(chan struct{})}
		q := newLogQueue(out)
		logger := q.logger(LogConfig{Level: "info", Format: "json"})
		long := strings.Repeat("x", 1000)
		const lines = 10_000 // 10 MB
		for range lines {
			logger.Info("chatter", "text", long)
		}
		synctest.Wait()
		dropped := q.full.Load()
		if least := int64(lines - (queueBytes-errorBytes)/1000); dropped < least || dropped == lines {
			t.Errorf("%d of %d lines were dropped, want at least %d", dropped, lines, least)
		}
		for range 500 {
			logger.With("a", 1).WithGroup("g").Error("trouble", "text", long)
		}
		if n := q.full.Load(); n != dropped {
			t.Errorf("%d errors were dropped", n-dropped)
		}
		if q.size > queueBytes {
			t.Errorf("%d bytes wait, want at most %d", q.size, queueBytes)
		}
		close(out.reads)
		synctest.Wait()
		q.close()
		text := out.text.String()
		if n := int64(strings.Count(text, "chatter")); n != lines-dropped {
			t.Errorf("%d lines were written, and %d dropped of %d", n, dropped, lines)
		}
		if n := strings.Count(text, "trouble"); n != 500 {
			t.Errorf("%d errors were written, want 500", n)
		}
		if !strings.Contains(text, fmt.Sprintf(`"lines":%d`, dropped)) {
			t.Error("no line says how many were dropped")
		}
		if q.size != 0 {
			t.Errorf("%d bytes wait in an empty queue", q.size)
		}
	})
}

type goneReader struct{}

func (goneReader) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestLogLinesThatCannotBeWrittenAreCounted(t *testing.T) {
	q := newLogQueue(goneReader{})
	logger := q.logger(LogConfig{Level: "info", Format: "json"})
	for range 7 {
		logger.Info("line")
	}
	q.close()
	if lost, full := q.lost.Load(), q.full.Load(); lost != 7 || full != 0 {
		t.Errorf("%d lines were lost and %d dropped, want 7 and 0", lost, full)
	}
}

// An exit waits for the last lines, but not forever if the log is not read.
func TestCloseOfTheLogQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &stalledReader{reads: make(chan struct{})}
		q := newLogQueue(out)
		q.logger(LogConfig{Format: "json"}).Info("last")
		begin := time.Now()
		q.close()
		if took := time.Since(begin); took != flushTimeout {
			t.Errorf("it took %s, want %s", took, flushTimeout)
		}
		close(out.reads)
		<-q.ended
	})
}

// A joined error is logged on one line, without "\n".
func TestErrorsInLogsAreOneLine(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		NewLogger(LogConfig{Level: "info", Format: format}, &out).Error("x", "error", errors.Join(errors.New("topics:\n  first"), fmt.Errorf("second\n%s", "third")))
		if text := out.String(); !strings.Contains(text, `"topics: first; second; third"`) {
			t.Errorf("%s: %s", format, text)
		}
	}
}
