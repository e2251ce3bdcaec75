// Package bus is the port to the message bus. It names no product. The packages below
// it implement it, and package bustest tests what every implementation must do.
//
// The records of a topic are spread over partitions. A partition is a log: its records
// have ascending offsets, which start at 0.
//
//	Bus         makes publishers, members and readers
//	Admin       creates topics and looks into them; part of Bus
//	Publisher   appends messages to topics, in order within a partition
//	Member      reads the partitions that its group assigns to it
//	Reader      reads whole topics, without a group
//	Owner       decides where assigned partitions are read from
//	Consumer    receives the events of one assignment, and returns what may be committed
//
// Messages are Watermill messages; its routers hand them from stage to stage. The
// metadata of a message are the headers of its record and nothing else; of several
// headers with the same name, the last one counts. Everything else that the bus knows
// of a message is in the message's context: the Position of a message that was read,
// and the Target of one that is to be published.
package bus
