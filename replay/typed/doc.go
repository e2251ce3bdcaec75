// Package typed writes records of topics to Avro object container files in which each
// datum is a frame, a rollup or an event, without key and headers: fastavro, Java's Avro
// and others read them without knowing Oona. All are of the latest version of their schema.
//
//	DIR/TOPIC/partition-00000/FIRST-LAST.avro    from and to offset, both included
//	DIR/_oona.json                               the manifest
//
// The bytes of a file depend on the records and the options only. A file has its name when
// it is whole and on disk, and then the manifest names it: a replay that was interrupted
// continues from there.
package typed
