// Package bustest holds what every bus must do: the conformance suite of the port
// that package bus declares. A bus runs it from a test:
//
//	bustest.Run(t, func(t *testing.T) bustest.Harness { ... })
//
// The tests are of the port, and not of a product: they make topics, publishers,
// members and readers through the Harness, and look at positions, payloads, headers
// and errors of package bus. What a bus cannot be made to do on purpose, its Harness
// leaves out, and the tests that need it are skipped with a reason.
package bustest
