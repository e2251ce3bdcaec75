// Package avro is the wire contract of Oona: the schemas of its records, each
// version of them, and their codec. Types of the libraries used stay inside.
//
// # Framing
//
// A record on the bus is Avro single-object encoding: the bytes C3 01, the
// CRC-64-AVRO fingerprint of the writer's schema (eight bytes, little-endian),
// then the value in Avro's binary encoding. The fingerprint is that of the
// schema's parsing canonical form, so documentation and defaults may change
// without a new version. A recording is an Avro object container file, which
// brings its schema along.
package avro
