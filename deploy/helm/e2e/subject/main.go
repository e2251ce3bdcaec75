// Command subject is what pods run in the tests of package kubelet: it says what it sees,
// or serves probes.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("no command"))
	}
	switch command := os.Args[1]; command {
	case "see":
		fail(see(os.Args[2:]))
	case "write":
		fail(os.WriteFile(os.Args[2], []byte(os.Args[3]), 0o644))
	case "exit":
		code, err := strconv.Atoi(os.Args[2])
		fail(err)
		os.Exit(code)
	case "serve":
		fail(serve(os.Args[2], len(os.Args) > 3))
	default:
		fail(fmt.Errorf("unknown command %s", command))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// sight is what a container sees.
type sight struct {
	Args     []string
	Env      []string
	Files    map[string]string
	UID, GID int
	Groups   []int
	Hostname string
	Root     string // the error of a write
}

func see(files []string) error {
	s := sight{Args: files, Env: os.Environ(), Files: make(map[string]string), UID: os.Getuid(), GID: os.Getgid()}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			text = []byte(err.Error())
		}
		s.Files[path] = string(text)
	}
	var err error
	if s.Groups, err = os.Getgroups(); err != nil {
		return err
	}
	if err := os.WriteFile("/new", nil, 0o644); err != nil {
		s.Root = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// serve answers /ready and /live until SIGTERM. A request to /toggle/ready or /toggle/live
// changes the answer. With stubborn, SIGTERM is only printed.
func serve(address string, stubborn bool) error {
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	var notReady, notLive atomic.Bool
	answer := func(path string, not *atomic.Bool) {
		http.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			if not.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		http.HandleFunc("/toggle"+path, func(http.ResponseWriter, *http.Request) { not.Store(!not.Load()) })
	}
	answer("/ready", &notReady)
	answer("/live", &notLive)
	failed := make(chan error, 1)
	go func() { failed <- http.ListenAndServe(address, nil) }()
	for {
		select {
		case err := <-failed:
			return err
		case <-terminated:
			fmt.Println("SIGTERM", time.Now().UnixMilli())
			if !stubborn {
				return nil
			}
		}
	}
}
