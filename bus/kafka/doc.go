// Package kafka is Kafka behind Watermill.
//
//	Publisher        message.Publisher; a call of Publish is one batch
//	Member  message.Subscriber of a consumer group; opens and closes an Owner around each claim, commits what it says
//	Reader        message.Subscriber of a whole topic, without a group, from its beginning or from a time
//	ApplyTopics      makes topics; CheckTopics says what is wrong with them
//
// What stands around a record travels in the message's metadata under the
// names of package oona that begin with '$'. Headers are metadata too; a header
// that begins with '$' itself is metadata with one '$' more, both ways, so that
// no record from outside can forge a position. A message without [oona.MetaKey]
// is a record without a key. Where a record has several headers of one name,
// the last holds.
//
// Subscribers never fail to make a message of a record: what its bytes mean is
// the handler's business.
package kafka
