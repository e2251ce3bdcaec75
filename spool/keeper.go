package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"time"
)

const (
	doneName  = "done"
	temporary = ".tmp"
	doneBytes = 8 + 4
)

// keeper keeps on disk the number up to which Done was called.
type keeper struct {
	fs    FileSystem
	saved uint64
	when  time.Time
}

// saveEvery is how often the number is written while records become done. After a crash, Next
// returns again the records that became done after the last write.
const saveEvery = time.Second

func (k *keeper) due(done uint64, now time.Time) bool {
	return done != k.saved && now.Sub(k.when) >= saveEvery
}

func (k *keeper) save(done uint64) error {
	if done == k.saved {
		return nil
	}
	k.when = time.Now()
	if err := ignoreMissing(k.fs.Remove(doneName + temporary)); err != nil {
		return fmt.Errorf("spool: save which records were sent: %w", err)
	}
	text := binary.LittleEndian.AppendUint64(nil, done)
	text = binary.LittleEndian.AppendUint32(text, crc32.Checksum(text, castagnoli))
	file, err := k.fs.Create(doneName + temporary)
	if err == nil {
		_, err = file.Write(text)
		err = errors.Join(err, file.Sync(), file.Close())
	}
	if err == nil {
		err = k.fs.Rename(doneName+temporary, doneName)
	}
	if err == nil {
		err = k.fs.Sync()
	}
	if err != nil {
		return fmt.Errorf("spool: save which records were sent: %w", err)
	}
	k.saved = done
	return nil
}

// errDone is returned if the file "done" is damaged.
var errDone = errors.New("the file is damaged")

// load returns the saved number. If no number was saved, it returns 0 and false.
func (k *keeper) load() (done uint64, saved bool, err error) {
	file, err := k.fs.Open(doneName)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	text := make([]byte, doneBytes)
	_, err = file.ReadAt(text, 0)
	if err = errors.Join(err, file.Close()); err != nil {
		return 0, false, fmt.Errorf("%w: %w", errDone, err)
	}
	if binary.LittleEndian.Uint32(text[8:]) != crc32.Checksum(text[:8], castagnoli) {
		return 0, false, errDone
	}
	k.saved = binary.LittleEndian.Uint64(text)
	return k.saved, true, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
