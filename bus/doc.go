// Package bus is the port to the message bus. It does not depend on a product. The packages
// below it implement it, and package bustest has the tests that every implementation must pass.
//
// The records of a topic are spread over partitions. A partition is a log: its records
// have ascending offsets, which start at 0.
//
//	Bus         makes publishers, members and readers
//	Admin       creates topics and looks into them; part of Bus
//	Publisher   appends messages to topics, in order within a partition
//	Member      reads the partitions that its group assigns to it
//	Reader      reads whole topics, without a group
//	Owner       decides from which offsets assigned partitions are read
//	Consumer    receives the events of one assignment, and returns what may be committed
//
// Messages are Watermill messages, and Watermill's routers pass them from stage to stage. The
// metadata of a message are the headers of its record, and nothing else. If several headers have
// the same name, the last one counts. Everything else that the bus knows about a message is in
// the message's context: the Position of a message that was read, and the Target of a message
// that will be published.
package bus
