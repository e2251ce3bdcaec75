package main

import (
	"errors"
	"os"
	"testing"
	"time"
)

// What people see of oona tensors.
func TestTensorsOutput(t *testing.T) {
	t.Parallel()
	s := newStoring(t)
	used, damaged, missing := s.tensor("used", 3), s.tensor("damaged!", 30), s.tensor("missing!", 30)
	s.tensor("unused", 30)
	s.publish(s.topics.SeedMetrics, s.frame(used, damaged, missing))
	s.publish(s.topics.SeedMetrics, s.frame(used))
	err := errors.Join(os.Remove(s.file(missing)), os.Chmod(s.file(damaged), 0o600), os.WriteFile(s.file(damaged), []byte("DAMAGED!"), 0o600), s.age(damaged, 30))
	if err != nil {
		t.Fatal(err)
	}
	log := newTranscript(t, s.brokers, "BROKER", s.dir, "DIRECTORY")
	tensors := func(args ...string) { log.run(append(append([]string{"tensors"}, args...), s.flags...)...) }
	tensors("ls")
	tensors("ls", "--refs")
	tensors("verify")
	tensors("get", "nonsense")
	tensors("gc", "--list")
	tensors("gc", "--delete")
	tensors("gc", "--older-than=1m")
	s.publish(s.topics.SeedRawDead, []byte("\x1f\x8b is compressed"))
	log.note("A dead letter is compressed.")
	tensors("gc", "--delete", "--yes", "--settle=1ms")
	tensors("gc", "--delete", "--yes", "--settle=1ms", "--ignore-undecodable")
	log.note("With the wrong bus.")
	other := newStoring(t)
	log.known = append(log.known, other.brokers, "BROKER")
	s.flags[1] = other.brokers
	s.tensor("unused", 30)
	tensors("gc", "--delete", "--yes", "--settle=1ms")
	log.golden("tensors.txt")
}

func TestProgressLine(t *testing.T) {
	p := progress{what: "reading records", total: 1000, done: 250}
	if got, want := p.line(10*time.Second), "reading records: 250 of 1000, 25/s, 30s left"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	p.total = 0
	if got, want := p.line(10*time.Second), "reading records: 250, 25/s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
