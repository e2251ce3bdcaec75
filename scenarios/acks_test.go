package scenarios

import (
	"hash/crc32"
	"sync"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/schemas/avro"
)

// identity identifies a frame.
type identity struct {
	run      oona.RunID
	producer oona.ProducerID
	epoch    oona.Micros
	sequence int64
}

func identityOf(f *oona.Frame) identity { return identity{f.Run, f.Producer, f.Epoch, f.Sequence} }

// sent is a frame that a trainer has sent.
type sent struct {
	checksum     uint32 // of its bytes
	acknowledged bool
}

// acks records the frames that were sent, and the answers of ingest.
type acks struct {
	mu       sync.Mutex
	frames   map[identity]*sent
	answers  map[int]int // requests by status; 0 for no answer
	attempts int
}

func newAcks() *acks {
	return &acks{frames: make(map[identity]*sent), answers: make(map[int]int)}
}

func (a *acks) note(id identity, payload []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.frames[id] = &sent{checksum: crc32.ChecksumIEEE(payload)}
}

func (a *acks) answer(status int, ids []identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.attempts++
	a.answers[status]++
	if status/100 == 2 {
		for _, id := range ids {
			a.frames[id].acknowledged = true
		}
	}
}

// forget clears all acknowledgements, as the log may have lost the frames.
func (a *acks) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.frames {
		s.acknowledged = false
	}
}

// unacknowledge clears the acknowledgement of a frame, as it was lost on a disk.
func (a *acks) unacknowledge(id identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.frames[id]; s != nil {
		s.acknowledged = false
	}
}

func (a *acks) acknowledged() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.frames {
		if s.acknowledged {
			n++
		}
	}
	return n
}

// answered returns the number of requests with a status.
func (a *acks) answered(status int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answers[status]
}

// checkAcks checks that the log has all frames that ingest acknowledged, unchanged, and no
// frames that were not sent.
func (w *world) checkAcks(log map[int32][]logRecord) {
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
			known := w.acks.frames[id]
			switch {
			case known == nil && !w.foreign:
				w.fault("the log has a frame that was not sent: %+v", id)
			case known != nil && known.checksum != crc32.ChecksumIEEE(value):
				w.fault("the log has other bytes of %+v than were sent", id)
			case known != nil:
				found[id] = true
			}
		}
	}
	missing := 0
	for id, s := range w.acks.frames {
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
