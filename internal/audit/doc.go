// Package audit puts the events of seeds in order, over all topics of events, and says what
// is wrong with them.
//
//	topics of events --> by seed --> in the order of the sequence --> Life: events, repeats, faults
//
// The topics are read as often as it takes to keep memory bounded: each time, the events of
// a part of the seeds are kept.
package audit
