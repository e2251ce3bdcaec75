// Package archive keeps ranges of logs in directories of Avro object container files, and
// reads them back as the bus would.
//
// A file holds a range of one partition: every record with its key, headers, append time
// and the bytes of its value, as they were. Its name has its first and its last offset.
// The header of a file of the seed-metrics topic has a snapshot of the window engine, so
// that the range can be folded again without what was before it.
//
//	DIR/_oona.json                                       the manifest
//	DIR/TOPIC/partition-00003/FIRST-LAST.avro
//
// A file gets its name when it is complete and on disk. The manifest is replaced after each file.
//
// The package uses goavro, which has global variables for the limits of what it reads. Importing this
// package sets them.
package archive
