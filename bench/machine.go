package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// machine describes where the figures were taken, and the load there. Do not compare
// figures of different machines or loads.
type machine struct {
	Processor  string `json:"processor"`
	Cores      int    `json:"cores"`
	Go         string `json:"go"`
	System     string `json:"system"`
	LoadBefore string `json:"load_before"` // averages of 1, 5 and 15 minutes, if the system has them
	LoadAfter  string `json:"load_after"`
}

func thisMachine() machine {
	return machine{
		Processor: processor(), Cores: runtime.GOMAXPROCS(0), Go: runtime.Version(),
		System: runtime.GOOS + "/" + runtime.GOARCH, LoadBefore: load(),
	}
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores, %s, %s; load before %s, after %s", m.Processor, m.Cores, m.System, m.Go, m.LoadBefore, m.LoadAfter)
}

func processor() string {
	info, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	defer info.Close()
	for lines := bufio.NewScanner(info); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	fields := strings.Fields(string(text))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

// cpu returns the processor time of this process in user and system mode, including
// garbage collection.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(fmt.Sprintf("getrusage of this process: %v", err)) // its arguments are right
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// metered collects garbage, runs f, and returns the processor time and the time it took.
func metered(f func() error) (used, took time.Duration, err error) {
	runtime.GC()
	began, usedBefore := time.Now(), cpu()
	err = f()
	return cpu() - usedBefore, time.Since(began), err
}
