// Package intake turns bodies that trainers have sent into records of the seed-metrics
// topic. It decodes and validates frames, and replaces large tensors by claims.
//
//	body --> Decoder.Avro, Decoder.JSON --> Batch: messages, tensors to store
//	                                    \-> Refusal
//
// It does no I/O and knows nothing of HTTP: a caller says where a body came from, which
// memory it may use, and what a Refusal means to its client.
package intake
