// Package typed writes records of topics to Avro object container files. Each datum is a frame, a
// rollup or an event, without key and headers, so fastavro, Java's Avro and other programs can read
// the files. All data have the latest version of their schema.
//
//	DIR/TOPIC/partition-00000/FIRST-LAST.avro    from and to offset, both included
//	DIR/_oona.json                               the manifest
//
// The bytes of a file depend only on the records and the options. A file gets its name when it is
// complete and on disk. Then it is added to the manifest, and an interrupted replay continues after it.
package typed
