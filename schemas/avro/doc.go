// Package avro is the wire contract of Oona: the schemas of its records, each
// version of them, and their codec. The types of the libraries that it uses
// stay inside.
//
//	record               file                          written by           read by
//	SeedMetrics          seed_metrics.vN.avsc          AppendFrame          FrameDecoder
//	LayerHealth          layer_health.vN.avsc          AppendRollup         DecodeRollup
//	LayerPerformance     layer_performance.vN.avsc     AppendRollup         DecodeRollup
//	Tick                 tick.vN.avsc                  AppendTick           DecodeTick
//	WindowConfiguration  window_configuration.vN.avsc  AppendConfiguration  DecodeConfiguration
//	IncarnationStart     incarnation_start.vN.avsc     AppendIncarnation    DecodeIncarnation
//	SeedEvent            seed_event.vN.avsc            AppendEvent          DecodeEvent
//	archive Record       archive_record.vN.avsc        (nobody yet)         (nobody yet)
//	recordings           SeedMetrics and SeedEvent     fastavro             RecordingReader
//
// # Framing
//
// A record on the bus is Avro single-object encoding: the bytes C3 01, the
// CRC-64-AVRO fingerprint of the writer's schema (eight bytes, little-endian),
// then the value in Avro's binary encoding. The fingerprint is that of the
// schema's parsing canonical form, which leaves out documentation, defaults
// and logical types. It suffices to find the version that wrote a record, so
// nothing else is needed to read one. Decoders return what follows a record:
// a request body may hold many, one after the other. A recording is an Avro
// object container file, which brings its schema along; so may a request's body
// be (FrameDecoder.DecodeContainer).
//
// Other languages need the .avsc files and no code of ours. fastavro has no
// call for single-object encoding: write the ten bytes, then
// fastavro.schemaless_writer.
//
// # How records are read
//
// Frames are nearly all of the traffic, so the latest SeedMetrics is read by
// hand, column by column, into buffers that are used again. Every count is
// bounded by the bytes that are left before anything is allocated for it.
// Rollups are read by hand too. Everything else, and frames of other versions,
// goes through twmb/avro, which resolves the writer's version to the latest. All
// encoders are written by hand: they cannot fail, and equal values give equal
// bytes. The tests compare all of it with twmb/avro, goavro and fastavro.
//
// Decoders refuse what is not Avro of a published schema. Whether the values
// make sense is for the caller: see oona.Frame.Validate.
//
// # Evolution
//
// A published file is never changed but for its documentation, and never
// removed: what is in a topic's retention or an archive was written with it.
// All versions of a record must read each other, both ways:
//
//   - a new field has a default;
//   - only a field that has a default may go;
//   - names and types stay (an int that may become a long cannot go back, so
//     it would not pass), and neither a union nor an enum changes;
//   - a changed meaning is a new field.
//
// A reader refuses the fingerprint of a version that it does not have. Roll
// out readers before writers. Rollups and configurations are written in an
// older version for as long as they have nothing that needs the new one, so
// that the log decides when old readers stop (TestTheVersionFollowsTheContent).
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
//     layout beside the old ones. Teach FrameDecoder the new layout; keep
//     reading the one before by hand until no writer of it is left, as
//     twmb/avro takes 30 times as long.
//  4. Run go test -run TestGolden -update, which writes the payload of the new
//     version to testdata/golden and touches no other. Then run all tests with
//     OONA_REQUIRE_FASTAVRO=1.
package avro
