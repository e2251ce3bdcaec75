// Package bustest is the conformance suite of package bus. Every implementation runs it
// from a test:
//
//	bustest.Run(t, func(t *testing.T) bustest.Harness { ... })
//
// The tests use only package bus: its interfaces, positions, messages and errors. Faults
// that a bus cannot be made to have are left out of its Harness. The tests that need them
// are skipped, with a reason.
package bustest
