// Package bus is the port to the message bus. It names no product: the
// packages below it are buses, and bustest holds what each of them must do.
//
// The records of a topic are spread over partitions. A partition is a log: its
// records are numbered, from 0 on, by their offset.
//
//	Publisher   appends messages to partitions, in order
//	Owner       decides where the partitions that a member was assigned are read from
//	Consumer    is told what becomes of one assignment, and says what may be committed
//
// Messages are those of Watermill, whose routers hand them from stage to stage.
// The metadata of a message are the headers of its record, and nothing else:
// where several headers have one name, the last holds. What the bus knows of a
// message besides is in the message's context: the Position of one that was
// read, and the Target of one that is to be published.
package bus
