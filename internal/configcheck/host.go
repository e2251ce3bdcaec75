package configcheck

import (
	"fmt"
	"slices"
)

// OneHost returns what prevents workers from running on one host: two of them listen
// on the same port, or two ingests have the same name, which by default is the name
// of the host. It returns the conflict in faults if the workers are on one host:
// they have an address in common, or they are ingests with different ports.
// Otherwise, it returns the conflict in perhaps.
func OneHost(workers []Worker) (faults, perhaps []string) {
	for i, w := range workers {
		for _, other := range workers[:i] {
			on, wrong := hostsOf(w, other), shared(w, other)
			apart := len(wrong) == 0
			if sameDefault(w, other) {
				wrong = append(wrong, fmt.Sprintf("%s: instance is %s, the name of the host, which %s has, too; give each ingest its own (--instance), or frames that go through the slower one are late", w, w.Text("instance"), other))
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

// hosts says whether two workers run on one host, as far as their addresses show.
type hosts int

const (
	anyHost  hosts = iota // unknown: every machine has these addresses
	oneHost               // they have an address in common
	twoHosts              // each has an address of one machine, and no address in common
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

// shared returns the ports that both workers would listen on.
func shared(w, other Worker) (wrong []string) {
	for _, at := range w.listeners() {
		for _, taken := range other.listeners() {
			if at.address.Overlaps(taken.address) {
				wrong = append(wrong, fmt.Sprintf("%s: %s is %s, and %s of %s is %s; on one host, two workers cannot listen on the same port", w, at.flag, w.Text(at.flag), taken.flag, other, other.Text(taken.flag)))
			}
		}
	}
	return wrong
}

// sameDefault reports whether two ingests have the same name, at least one of them by
// default. (If both names are configured, it is a fault on any host.)
func sameDefault(w, other Worker) bool {
	return w.Kind == Ingest && other.Kind == Ingest && w.Text("instance") == other.Text("instance") && (!w.gives("instance") || !other.gives("instance"))
}
