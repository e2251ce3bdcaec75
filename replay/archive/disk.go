package archive

import (
	"crypto/sha256"
	"errors"
	"hash"
	"hash/crc32"
	"os"
	"sync"
	"sync/atomic"
)

// The size of the pieces in which a file is written, and their number. One piece is filled while
// others are written and hashed.
const (
	pieceBytes = 1 << 20
	pieces     = 4
)

// disk writes a file and computes its SHA-256, while the caller makes the next bytes. finish and end
// wait for its goroutines.
type disk struct {
	file   *os.File
	digest hash.Hash
	check  hash.Hash // CRC-32C
	size   int64     // number of bytes that were passed to Write

	filling *piece
	free    chan *piece
	toWrite chan *piece
	toHash  chan *piece
	working sync.WaitGroup
	failed  atomic.Pointer[error] // the first error of writing
}

// piece is a part of the file.
type piece struct {
	bytes []byte
	users atomic.Int32 // number of goroutines that still use it
}

func newDisk(file *os.File) *disk {
	d := &disk{file: file, digest: sha256.New(), check: crc32.New(castagnoli), free: make(chan *piece, pieces), toWrite: make(chan *piece, pieces), toHash: make(chan *piece, pieces)}
	for range pieces {
		d.free <- &piece{bytes: make([]byte, 0, pieceBytes)}
	}
	d.filling = <-d.free
	d.working.Go(func() { d.each(d.toWrite, d.write) })
	d.working.Go(func() { d.each(d.toHash, d.hash) })
	return d
}

// each calls use for each piece, until the channel is closed.
func (d *disk) each(all chan *piece, use func([]byte)) {
	for p := range all {
		use(p.bytes)
		if p.users.Add(-1) == 0 {
			p.bytes = p.bytes[:0]
			d.free <- p
		}
	}
}

// write writes a piece, unless an earlier one has failed.
func (d *disk) write(p []byte) {
	if d.failed.Load() != nil {
		return
	}
	if _, err := d.file.Write(p); err != nil {
		d.failed.Store(&err)
	}
}

// hash hashes a piece. Hashes return no error.
func (d *disk) hash(p []byte) {
	d.digest.Write(p)
	d.check.Write(p)
}

func (d *disk) err() error {
	if failed := d.failed.Load(); failed != nil {
		return *failed
	}
	return nil
}

// Write writes bytes. Its error may come from an earlier call.
func (d *disk) Write(p []byte) (n int, err error) {
	for n < len(p) {
		room := min(pieceBytes-len(d.filling.bytes), len(p)-n)
		d.filling.bytes = append(d.filling.bytes, p[n:n+room]...)
		n += room
		if len(d.filling.bytes) == pieceBytes {
			d.hand()
			d.filling = <-d.free
		}
	}
	d.size += int64(n)
	return n, d.err()
}

// hand passes the filled piece to the goroutines that write and hash it.
func (d *disk) hand() {
	d.filling.users.Store(2)
	d.toWrite <- d.filling
	d.toHash <- d.filling
	d.filling = nil
}

// end waits until all pieces are written. The file stays open.
func (d *disk) end() {
	close(d.toWrite)
	close(d.toHash)
	d.working.Wait()
}

// finish writes what is left, and closes the file when it is on disk. It returns the SHA-256.
func (d *disk) finish() ([]byte, error) {
	d.hand()
	d.end()
	err := errors.Join(d.err(), d.file.Sync(), d.file.Close())
	return d.digest.Sum(nil), err
}
