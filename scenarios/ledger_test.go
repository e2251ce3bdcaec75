package scenarios

import (
	"hash/crc32"
	"sync"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// identity tells frames apart.
type identity struct {
	run      oona.RunID
	producer oona.ProducerID
	epoch    oona.Micros
	sequence int64
}

func identityOf(f *oona.Frame) identity { return identity{f.Run, f.Producer, f.Epoch, f.Sequence} }

// sent is what the ledger knows of a frame.
type sent struct {
	checksum     uint32 // of its bytes
	acknowledged bool
}

// ledger is the clients' account of what ingest has answered.
type ledger struct {
	mu       sync.Mutex
	frames   map[identity]*sent
	answers  map[int]int // requests by status; 0: no answer
	attempts int
}

func newLedger() *ledger {
	return &ledger{frames: make(map[identity]*sent), answers: make(map[int]int)}
}

func (l *ledger) note(id identity, payload []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frames[id] = &sent{checksum: crc32.ChecksumIEEE(payload)}
}

func (l *ledger) answer(status int, ids []identity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempts++
	l.answers[status]++
	if status/100 == 2 {
		for _, id := range ids {
			l.frames[id].acknowledged = true
		}
	}
}

// forget takes back all acknowledgements, as the log may have lost what they
// were for.
func (l *ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.frames {
		s.acknowledged = false
	}
}

func (l *ledger) acknowledged() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.frames {
		if s.acknowledged {
			n++
		}
	}
	return n
}

// answered returns how many requests got a status.
func (l *ledger) answered(status int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers[status]
}

// checkLedger: what ingest has acknowledged is in the log, as it was sent, and
// nothing else is.
func (w *world) checkLedger(log map[int32][]logRecord) {
	w.Helper()
	found := make(map[identity]bool)
	var decoder avro.FrameDecoder
	var frame oona.Frame
	for _, records := range log {
		for i := range records {
			value := records[i].value
			if records[i].headers[oona.HeaderRecord] != "" {
				continue
			}
			if _, err := decoder.Decode(value, &frame); err != nil {
				if !w.foreign {
					w.fault("offset %d of partition %d is no frame: %v", records[i].offset, records[i].partition, err)
				}
				continue
			}
			id := identityOf(&frame)
			known := w.ledger.frames[id]
			switch {
			case known == nil && !w.foreign:
				w.fault("the log has a frame that nobody sent: %+v", id)
			case known != nil && known.checksum != crc32.ChecksumIEEE(value):
				w.fault("the log has other bytes of %+v than were sent", id)
			case known != nil:
				found[id] = true
			}
		}
	}
	missing := 0
	for id, s := range w.ledger.frames {
		if s.acknowledged && !found[id] {
			if missing == 0 {
				w.fault("ingest acknowledged %+v, and the log does not have it", id)
			}
			missing++
		}
	}
	if missing > 1 {
		w.fault("%d acknowledged frames are missing", missing)
	}
}
