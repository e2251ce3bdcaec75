// Package verdict says which layers of a network are unhealthy, and why. Its only input are
// rollups.
//
// A verdict is a function of a layer's rollups: the same rollups in the same order give
// the same verdict, on every machine. It is computed with integers. Floating-point numbers are
// used only in the output for people.
//
// A [Judge] judges the rollups of one layer, and a [Run] those of all layers of a run. The [Rule] of
// a metric says what is judged about it. It comes from the catalogue of metrics.
//
// # How the level of a metric is judged
//
// Rollups have a histogram of the samples with 32 buckets per octave. The index of the
// bucket with the median is a logarithm of the median. So the difference of two indexes says how
// many times one median is larger than the other. A judge keeps the expected index, which is
// called the level, and the usual distance from it, which is called the width.
//
// A window has a fault if its distance from the level is unusual and large. It is unusual if it is
// more than six widths. It is large if the median has changed by the multiple in the rule. In
// layers with much noise, slow faults stay within six widths. So the judge also adds up distances
// on the same side. Values outside the expected range hardly change the level, so a spike does not
// hide a fault that follows. After 16 windows in a row outside the range, or 64 if they are far
// outside, the judge accepts a new level. If the new level was a fault, the return to the former
// level is no fault.
//
// A reason stands when two windows in a row have it, and it falls when three windows in a row do
// not. Some faults do not depend on earlier windows: infinities, missing values, dead units, silent
// seeds, and samples that repeat.
//
// docs/verdict.md has all constants, how well this finds faults, and what it cannot see.
//
// # Memory
//
// A Judge needs 560 bytes, 200 for each metric that is judged, and 104 for each reason
// that stands or may soon stand. It keeps no history. The rules of a catalogue bound the number
// of metrics.
package verdict
