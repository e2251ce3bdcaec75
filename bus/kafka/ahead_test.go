package kafka

import (
	"testing"

	"github.com/IBM/sarama"

	"github.com/morphogenetic/oona/bus"
)

// pausing is a claim that records whether it is paused.
type pausing struct {
	sarama.ConsumerGroupClaim
	paused bool
}

func (p *pausing) Pause()  { p.paused = true }
func (p *pausing) Resume() { p.paused = false }

// All partitions are paused while they hold more than the limit together. This includes a partition
// that is assigned in the meantime. The bytes of a partition do not count after its end.
func TestPartitionsPauseWhileTooMuchIsHeld(t *testing.T) {
	h := newAhead(bus.MemberOptions{ReadAheadAll: 1000})
	h.fetch = 100
	var claims []*pausing
	open := func() *assigned {
		claims = append(claims, new(pausing))
		a := &assigned{ConsumerGroupClaim: claims[len(claims)-1]}
		h.open(a)
		return a
	}
	paused := func() (n int) {
		for _, c := range claims {
			if c.paused {
				n++
			}
		}
		return n
	}
	one, two := open(), open()
	h.took(one, &sarama.ConsumerMessage{Key: make([]byte, 10), Value: make([]byte, 40)})
	if h.held != 100+2*50 || paused() != 0 {
		t.Errorf("%d are held, %d are paused", h.held, paused())
	}
	h.took(two, &sarama.ConsumerMessage{Value: make([]byte, 270)})
	if h.held != 200+3*270 || paused() != 2 {
		t.Errorf("%d are held, %d are paused, want both", h.held, paused())
	}
	three := open()
	if paused() != 3 {
		t.Errorf("%d are paused, want also the one that is new", paused())
	}
	h.hold(one, 0)
	if h.held != 3*270 || paused() != 0 {
		t.Errorf("%d are held, %d are paused", h.held, paused())
	}
	h.took(three, &sarama.ConsumerMessage{Value: make([]byte, 100)})
	if paused() != 3 {
		t.Errorf("%d are held, %d are paused, want all", h.held, paused())
	}
	h.close(two)
	if h.held != 300 || claims[0].paused || claims[2].paused {
		t.Errorf("%d are held after the end of a partition: %v, %v", h.held, claims[0].paused, claims[2].paused)
	}
}
