// Package intake turns bodies that trainers have sent into records of the topics of frames
// and events. It decodes and validates them, and replaces large tensors by claims.
//
//	body --> Decoder.Avro, Decoder.JSON, ... --> Batch: messages, tensors to store
//	                                         \-> Refusal
//
// It does no I/O and knows nothing about HTTP. The caller decides where a body comes from, how
// much memory it may use, and what a Refusal means to its client.
package intake
