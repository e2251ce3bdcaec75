// Package audit puts the events of seeds in all topics of events in order, and finds faults in
// them.
//
//	topics of events --> by seed --> in the order of the sequence --> Life: events, repeats, faults
//
// To bound its memory, the package reads all topics several times if there are many events. Whenever
// the events that it has kept need too much memory, it drops those of half of the seeds and reads
// on. It reads what it has dropped in later passes. Repeats take no memory, so they cost no passes.
package audit
