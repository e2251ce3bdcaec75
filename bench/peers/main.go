// Command peers aggregates frames with the libraries of other programs, and prints how fast
// they are. It is a separate module, so that Oona does not depend on these libraries. `go
// run ./bench --peers` builds it, gives it the frames, and runs it once per round.
//
// Each peer gets messages in its own wire format, which are prepared before. It is measured
// from there to the aggregates of the last window.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// run reads encoded frames, and writes a JSON object with the speed of each peer, in million
// samples per second of processor time.
func run(in io.Reader, out io.Writer) error {
	windows, err := readWindows(in)
	if err != nil {
		return err
	}
	speeds := make(map[string]float64)
	for name, prepare := range map[string]func([]window) (fold, error){"victoriametrics": newVictoria, "telegraf": newTelegraf} {
		fold, err := prepare(windows)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		speed, err := measure(windows, fold)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		speeds[name+"_msamples_core"] = speed
	}
	return json.NewEncoder(out).Encode(speeds)
}

// fold decodes the prepared messages of a peer, and aggregates them.
type fold func() (results, error)

// measure folds twice, the first time to warm up, and checks the results.
func measure(windows []window, fold fold) (msamples float64, err error) {
	for range 2 {
		runtime.GC() // garbage from before must not count
		before := cpu()
		got, err := fold()
		used := cpu() - before
		if err != nil {
			return 0, err
		}
		if err := got.check(windows); err != nil {
			return 0, err
		}
		msamples = float64(samples(windows)) / used.Seconds() / 1e6
	}
	return msamples, nil
}

// cpu returns the processor time of this process, including garbage collection.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(fmt.Sprintf("getrusage of this process: %v", err)) // its arguments are right
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
