// Package reduce has the numbers that a window keeps of a layer's readings, and
// the loops that compute them.
//
// A [Metric] keeps moments, an exponential histogram and the worst seeds of one
// metric; each has its own file. A [Census] keeps the state of each seed.
// [Steps] measures how fast a layer trains. They take a column at a time and use
// no map and no memory per reading.
//
// Everything is a function of the samples and of their order, which is the order of the
// log. The package has no clock, no goroutine and no I/O. Products that are summed
// are rounded first, as float64(x*y) + z, so that a compiler cannot fuse them and
// the result does not depend on the processor. The inner loops are in block.go and,
// for amd64, in block_amd64.s; tests compare the two bit by bit.
//
// A change that gives other results for the same samples is a new version of the
// reducers: see windows.Reducer. Earlier versions stay.
package reduce
