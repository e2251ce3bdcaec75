// Package kafka implements package bus on Kafka, with sarama and watermill-kafka.
//
//	Bus        bus.Bus
//	Publisher  bus.PinnedPublisher; a call of Publish is one batch for each partition
//	Member     bus.Member of a consumer group
//	Reader     bus.Reader of whole topics, without a group
//
// Subscriptions never fail because of the content of a record: handlers decode it.
package kafka
