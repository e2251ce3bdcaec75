package spool

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// batchBytes is the maximum size of a batch. The records of a batch are written and synced together.
// Records that arrive during a sync form the next batch, so no timer is needed.
const batchBytes = 8 << 20

// write writes the waiting records, batch by batch, until the spool is closed.
func (s *Spool) write() {
	defer close(s.written)
	var buffer []byte
	for {
		batch, first, ok := s.take()
		if !ok {
			break
		}
		buffer = s.commit(batch, first, buffer[:0])
		if cap(buffer) > 2*batchBytes {
			buffer = nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.seal(); err != nil {
		s.opts.Logger.Warn("the spool could not close a file; its records are on disk", "err", err)
	}
}

// take waits for records. It returns as many as fit into a batch, and the sequence number of the
// first. It returns false when the spool is closed and no record waits.
func (s *Spool) take() (batch []*appending, first uint64, ok bool) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			n, size := 0, 0
			for n < len(s.queue) && (n == 0 || size+len(s.queue[n].body) <= batchBytes) {
				size += frameBytes + len(s.queue[n].body)
				n++
			}
			batch = append(batch, s.queue[:n]...)
			s.queue = append(s.queue[:0], s.queue[n:]...)
			s.flight = n
			first = s.next
			s.mu.Unlock()
			return batch, first, true
		}
		closed, wake := s.closed, s.wake
		s.mu.Unlock()
		if closed {
			return nil, 0, false
		}
		<-wake
	}
}

// commit writes a batch, and sends the result to each waiting Append.
func (s *Spool) commit(batch []*appending, first uint64, buffer []byte) []byte {
	seg, err := s.segmentFor(first)
	var size int64
	if err == nil {
		for i, a := range batch {
			buffer = seg.appendRecord(buffer, first+uint64(i), a.body)
			size += int64(frameBytes + len(a.body))
		}
		err = s.room(size)
	} else {
		for _, a := range batch {
			size += int64(frameBytes + len(a.body))
		}
	}
	poisoned := false
	if err == nil {
		if _, err = seg.file.Write(buffer); err == nil {
			err = seg.file.Sync()
		}
		if err == nil {
			err = s.has(seg.name, seg.file)
		}
		poisoned = err != nil
	}
	err = withFull(err)
	s.settle(batch, seg, size, err, poisoned)
	for _, a := range batch {
		if err != nil {
			a.result <- fmt.Errorf("spool: write: %w", err)
		} else {
			a.result <- nil
		}
	}
	return buffer
}

// has returns ErrReplaced if an open file is no longer in the directory under its name.
func (s *Spool) has(name string, file File) error {
	if there, err := s.fs.Has(name, file); err != nil || there {
		return err
	}
	return fmt.Errorf("%s: %w", name, ErrReplaced)
}

// withFull makes the error wrap ErrFull, too, if the file system has no space left. room checks
// the free space before a write, but a file system needs more than the bytes of a file, and
// other programs write to it, too.
func withFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// settle records the result of writing a batch.
func (s *Spool) settle(batch []*appending, seg *segment, size int64, err error, poisoned bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.account()
	s.flight = 0
	s.waiting -= size
	if err == nil {
		s.next += uint64(len(batch))
		seg.end, seg.size = s.next, seg.size+size
		s.stats.Appended += int64(len(batch))
		s.stats.Syncs++
		close(s.arrived)
		s.arrived = make(chan struct{})
		if s.failing.Ends() {
			s.opts.Logger.Info("the spool can write records again")
		}
		return
	}
	if errors.Is(err, ErrFull) {
		s.stats.Refused += int64(len(batch))
	} else {
		s.stats.Failed += int64(len(batch))
		reason := ""
		if errors.Is(err, ErrReplaced) {
			reason = "replaced"
		}
		if skipped, say := s.failing.Fails(reason, time.Now()); say {
			s.opts.Logger.Error("the spool could not write records, so their requests are refused", "records", len(batch), "suppressed", skipped, "err", err)
		}
	}
	if poisoned {
		if size, err := seg.file.Size(); err == nil {
			seg.size = size
		}
		if err := s.seal(); err != nil {
			s.opts.Logger.Warn("the spool could not close a file after a failed write; no acknowledged record is lost", "err", err)
		}
		s.removeUnused(seg)
	}
}

// removeUnused removes a segment if its first write has failed, so that it has no acknowledged record.
// Otherwise each request to a disk that is full or broken would leave a file. The caller must hold mu.
func (s *Spool) removeUnused(seg *segment) {
	if seg.end > seg.first {
		return
	}
	if err := ignoreMissing(s.fs.Remove(seg.name)); err != nil {
		s.opts.Logger.Warn("the spool could not delete a file without records after a failed write; it tries again later", "file", seg.name, "err", err)
		return
	}
	s.segments = slices.DeleteFunc(slices.Clone(s.segments), func(other *segment) bool { return other == seg })
}

// room returns an error if a write would leave less than Headroom in the file system.
func (s *Spool) room(size int64) error {
	free, err := s.fs.Free()
	if err != nil {
		return err
	}
	if free-size < s.opts.Headroom {
		return fmt.Errorf("%w: the file system has %d bytes left, and %d must stay free", ErrFull, free, s.opts.Headroom)
	}
	return nil
}

// segmentFor returns the segment to write to: the active one, or a new one.
func (s *Spool) segmentFor(first uint64) (*segment, error) {
	s.mu.Lock()
	if s.active != nil && s.active.size >= s.opts.SegmentBytes {
		if err := s.seal(); err != nil {
			s.opts.Logger.Warn("the spool could not close a file; its records are on disk", "err", err)
		}
	}
	seg := s.active
	s.mu.Unlock()
	if seg != nil {
		return seg, nil
	}
	if err := s.has(lockName, s.lock); err != nil { // another process can lock the new directory
		return nil, err
	}
	if err := s.room(int64(headerBytes)); err != nil {
		return nil, err
	}
	// The number of a failed attempt is not used again, because its file may be on disk.
	s.number++
	seg, err := create(s.fs, newHeader(s.number, first))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = seg
	s.segments = append(s.segments, seg)
	s.account()
	return seg, nil
}

// seal ends the active segment. The caller must hold mu.
func (s *Spool) seal() error {
	if s.active == nil {
		return nil
	}
	file := s.active.file
	s.active.file, s.active = nil, nil
	return file.Close()
}

// create creates a segment without records, and makes it durable.
func create(fs FileSystem, h header) (*segment, error) {
	name := h.name()
	file, err := fs.Create(name + temporary)
	if err != nil {
		return nil, err
	}
	_, err = file.Write(h.append(nil))
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = fs.Rename(name+temporary, name)
	}
	if err == nil {
		err = fs.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close(), ignoreMissing(fs.Remove(name+temporary)), ignoreMissing(fs.Remove(name)))
	}
	return &segment{header: h, name: name, file: file, size: int64(headerBytes), end: h.first}, nil
}
