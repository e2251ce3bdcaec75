package configcheck

import (
	"fmt"
	"slices"
)

// OneHost says which workers cannot run on one host, as they would listen at the
// same port, or be ingests of the same name: one that is not given a name has its
// host's. Workers with an address in common run on one host, and ingests whose ports
// differ are taken to: what is wrong with these is in faults, with others in perhaps.
func OneHost(workers []Worker) (faults, perhaps []string) {
	for i, w := range workers {
		for _, other := range workers[:i] {
			on, wrong := hostsOf(w, other), shared(w, other)
			apart := len(wrong) == 0
			if sameDefault(w, other) {
				wrong = append(wrong, fmt.Sprintf("%s: instance is %s, by default the host's name, as that of %s; give each ingest its own (--instance), or frames that come through the slower of the two are late", w, w.Text("instance"), other))
			}
			switch {
			case on == oneHost, on == anyHost && apart:
				faults = append(faults, wrong...)
			case on == anyHost:
				perhaps = append(perhaps, wrong...)
			}
		}
	}
	return faults, perhaps
}

// hosts is what the addresses of two workers say of where they run.
type hosts int

const (
	anyHost  hosts = iota // nothing: each machine has such addresses
	oneHost               // they have an address in common
	twoHosts              // each has an address of a machine, and they have none in common
)

func hostsOf(a, b Worker) hosts {
	ofOne := func(l listener) bool { return l.address.IsOfOneMachine() }
	as, bs := a.listeners(), b.listeners()
	for _, at := range as {
		if slices.ContainsFunc(bs, func(other listener) bool { return at.address.SameMachine(other.address) }) {
			return oneHost
		}
	}
	if slices.ContainsFunc(as, ofOne) && slices.ContainsFunc(bs, ofOne) {
		return twoHosts
	}
	return anyHost
}

// shared says at which ports both workers would listen.
func shared(w, other Worker) (wrong []string) {
	for _, at := range w.listeners() {
		for _, taken := range other.listeners() {
			if at.address.Overlaps(taken.address) {
				wrong = append(wrong, fmt.Sprintf("%s: %s is %s, and %s of %s is %s: two workers cannot listen at one port of a host", w, at.flag, w.Text(at.flag), taken.flag, other, other.Text(taken.flag)))
			}
		}
	}
	return wrong
}

// sameDefault reports whether two ingests have the same name, and not both were
// given it, which is a fault on any host.
func sameDefault(w, other Worker) bool {
	return w.Kind == Ingest && other.Kind == Ingest && w.Text("instance") == other.Text("instance") && (!w.gives("instance") || !other.gives("instance"))
}
