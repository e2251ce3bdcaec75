package access

import (
	"path"
	"slices"
)

// Role is something that an identity may do.
type Role string

// The roles.
const (
	Frames  Role = "frames"  // send frames of its runs and producers
	Tensors Role = "tensors" // upload tensors
	Metrics Role = "metrics" // read the metrics and the index page of an admin port
	Profile Role = "profile" // read profiles of an admin port
)

// roles has all roles.
var roles = []Role{Frames, Tensors, Metrics, Profile}

// Identity is a client that is known.
type Identity struct {
	Name string

	roles     []Role
	runs      []string // patterns of package path
	producers []string
}

// Has reports whether the identity has a role.
func (i *Identity) Has(role Role) bool { return slices.Contains(i.roles, role) }

// Run reports whether the identity may send frames of a run.
func (i *Identity) Run(run string) bool { return matches(i.runs, run) }

// Producer reports whether the identity may send frames of a producer.
func (i *Identity) Producer(producer string) bool { return matches(i.producers, producer) }

// everything is the pattern that all names match.
const everything = "*"

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if pattern == everything {
			return true
		}
		ok, _ := path.Match(pattern, name) // the pattern was checked when the file was read
		return ok
	})
}
