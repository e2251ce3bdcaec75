// Package trial makes training runs with known faults, to measure detectors with.
//
// It knows nothing of package verdict and must not import it: the faults are described by
// what happens to a layer, and not by what a detector looks at. A run is made as frames,
// and its rollups come from the window engine.
//
// Everything in a run follows from its [Kind] and its seed. The generator's levels, noise and
// faults are ours, so results compare detectors on the same runs. They are no promise
// for the runs of others.
package trial
