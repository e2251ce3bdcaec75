// Package registry looks up schemas in a schema registry that has the REST interface of
// Confluent's. Apicurio, Karapace and Redpanda have this interface, too. Ingest needs it to read
// frames that serializers of such a registry have written. Nothing else in Oona needs a registry.
//
//	id --> memory --> registry --> avro.FrameSchema
//	                     |
//	                     +-- no answer: cache file, or an error, and the frame waits
//
// A registry never gives an id to another schema. So its answers are kept until the process ends,
// and in the cache file.
package registry
