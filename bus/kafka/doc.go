// Package kafka is the bus on Kafka: sarama and watermill-kafka behind the port
// that package bus declares.
//
//	Publisher    bus.Publisher; a call of Publish is one batch for each partition
//	Member       bus.Member of a consumer group; asks its bus.Owner where partitions are read from
//	Reader       bus.Reader of a whole topic, without a group, from its beginning or from a time
//	ApplyTopics  makes topics; CheckTopics says what is wrong with them
//
// Headers of a record are the metadata of its message, and nothing else is. Where a
// record has several headers of one name, the last holds.
//
// Subscribers never fail to make a message of a record: what its bytes mean is for
// the handler to say.
package kafka
