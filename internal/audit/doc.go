// Package audit puts the events of seeds in all topics of events in order, and finds faults in
// them.
//
//	topics of events --> by seed --> in the order of the sequence --> Life: events, repeats, faults
//
// To bound its memory, the package divides the seeds into parts if there are many events. It reads
// all topics once for each part, and keeps only the events of that part.
package audit
