// Package verdict says which layers of a network are unhealthy, and why. It looks at
// rollups only.
//
// A verdict is a function of a layer's rollups: the same rollups in the same order give
// the same verdict, on every machine. It is computed in integers. Floating-point numbers are
// only made for people to read.
//
// A [Judge] takes the rollups of one layer, a [Run] those of all layers of a run. What is judged
// of a metric is its [Rule], which comes from the catalogue of metrics.
//
// # How the level of a metric is judged
//
// Rollups have a histogram of the samples with 32 buckets per octave. The index of the
// bucket with the median is a logarithm, so "how many times too large" is the difference
// of two indexes. A judge keeps the expected index and the usual distance from it. A
// window is a fault if the distance is both unusual, more than six times the usual one,
// and material: at least twice, or what the rule says. Distances on one side are also
// added up, for layers with much noise. Values outside hardly change what is expected, so
// a spike does not hide what follows. After 16 windows outside, or 64 if they are far
// outside, the new level is accepted. If that was a fault, the return to the level before
// is not.
//
// A reason stands after two windows in a row and falls after three without it. Some things
// are faults whatever was before: infinities, values that are missing, dead units, silent
// seeds, samples that repeat.
//
// docs/verdict.md has all constants, how well this finds faults, and what it cannot see.
//
// # Memory
//
// A Judge takes 560 bytes, 200 for each metric that is judged, and 104 for each reason
// that stands or may soon. It has no history. The rules of a catalogue bound the number
// of metrics.
package verdict
