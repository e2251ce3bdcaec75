// Package avro is the wire format of Oona: every version of the schemas of its records,
// and the codec. It does not expose types of the libraries that it uses.
//
//	record               file                          written by           read by
//	SeedMetrics          seed_metrics.vN.avsc          AppendFrame          FrameDecoder
//	LayerHealth          layer_health.vN.avsc          AppendRollup         DecodeRollup
//	LayerPerformance     layer_performance.vN.avsc     AppendRollup         DecodeRollup
//	Tick                 tick.vN.avsc                  AppendTick           DecodeTick
//	WindowConfiguration  window_configuration.vN.avsc  AppendConfiguration  DecodeConfiguration
//	IncarnationStart     incarnation_start.vN.avsc     AppendIncarnation    DecodeIncarnation
//	SeedEvent            seed_event.vN.avsc            AppendEvent          DecodeEvent
//	RunEnd               run_end.vN.avsc               AppendRunEnd         DecodeRunEnd
//	archive Record       archive_record.vN.avsc        (not yet)            (not yet)
//	recordings           SeedMetrics and SeedEvent     fastavro             RecordingReader
//
// # Framing
//
// A record on the bus is Avro single-object encoding: the bytes C3 01, the
// CRC-64-AVRO fingerprint of the writer's schema (eight bytes, little-endian),
// then the value in Avro's binary encoding. The fingerprint is computed from the
// schema's parsing canonical form, which leaves out documentation, defaults and
// logical types. It identifies the schema version of a record, so a reader needs
// nothing else. Decoders return the bytes after a record, because a request body may
// hold many records. A recording is an Avro object container file, which includes its
// schema. The body of a request may be one, too: see FrameDecoder.DecodeContainer.
//
// Other languages need only the .avsc files. fastavro has no function for single-object
// encoding: write the ten bytes, then call fastavro.schemaless_writer.
//
// # How records are read
//
// Frames are nearly all of the traffic, so the decoder of the latest SeedMetrics is
// written by hand. It decodes columns into buffers that it reuses. Before it allocates
// memory for a count, it checks the count against the number of bytes that are left.
// The decoder of rollups is written by hand, too. All other records, and frames of
// other versions, are decoded by twmb/avro, which resolves the writer's version to the
// latest one. All encoders are written by hand: they cannot fail, and equal values give
// equal bytes. Tests compare encoders and decoders with twmb/avro, goavro and fastavro.
//
// Decoders return an error for data that is not Avro of a published schema. They do not
// check what the values mean: see oona.Frame.Validate.
//
// # Evolution
//
// A published file is never removed, and only its documentation may change: topics and
// archives hold records that were written with it. Each version of a record must be
// readable as every other one:
//
//   - a new field has a default;
//   - only a field with a default may be removed;
//   - names and types do not change (an int can be read as a long, but not a long as an
//     int), and unions and enums do not change;
//   - if the meaning of a field changes, it becomes a new field.
//
// A reader returns an error for a version that it does not have, so deploy readers
// before writers. Rollups and configurations are written in the oldest version that has
// what they need. So the log decides when old readers stop
// (TestTheVersionFollowsTheContent).
//
// # Adding a version
//
//  1. Copy NAME.vN.avsc to the next N and change the copy.
//  2. Add the field to the type in package oona (and, in a rollup, to its
//     ContentHash), to the wire type here, and to the plain values in
//     samples_test.go. The default that older records get must be the field's
//     zero value, or FrameDecoder must set it.
//  3. Move the encoder, its fingerprint constant and the list in
//     TestPublishedFingerprints to the new version. Teach DecodeRollup the new
//     layout in addition to the old ones. Teach FrameDecoder the new layout, and
//     keep the hand-written decoder of the previous one until nothing writes it any
//     more: twmb/avro takes 30 times as long.
//  4. Run go test -run TestGolden -update. It writes the payload of the new version
//     to testdata/golden and changes no other file. Then run all tests with
//     OONA_REQUIRE_FASTAVRO=1.
package avro
