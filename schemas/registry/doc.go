// Package registry looks up schemas in a schema registry that has the REST interface of
// Confluent's, as Apicurio, Karapace and Redpanda have, too. It is for the edges of Oona:
// ingest reads frames that serializers of such a registry have written. The log itself
// needs no registry.
//
//	id --> memory --> registry --> avro.FrameSchema
//	                     |
//	                     +-- away: cache file, or an error, and the frame waits
//
// A registry never gives an id to another schema. So what it has answered is kept for the
// life of the process, and in the cache file.
package registry
