// Package spool keeps records on a local disk until another system takes them: a queue of
// one process that survives the process and a crash of the operating system.
//
//	Append ──▶ one writer: all that waits, one write, one fdatasync ──▶ segment files ──▶ Next, Done
//
// # Promise
//
// When Append returns nil, the record is on disk. It is returned by Next, again after each
// start, until Done was called for it. Records are returned in the order of their
// sequence numbers, which have no gaps. A record of which Append has returned an error may
// still be returned by Next if the process crashes before the next start; otherwise it is
// not.
//
// A directory belongs to one process at a time; it is locked.
//
// Queues are several spools in one directory, with one bound.
//
// # Files
//
// A segment is a file with a header and records. The numbers of segments ascend. All
// numbers in a file are little-endian.
//
//	name     number-first sequence-salt.seg
//	header   "oonaspl1" · number u64 · first sequence u64 · salt [16]byte · CRC-32C of what is before u32
//	record   length u32 · CRC-32C u32 of (salt, sequence, length, body) · sequence u64 · body
//
// The salt is random. It tells a record of this file from bytes that an older file has left on
// the disk. The first sequence of a segment says which records of the segment before
// count: those below it. So a segment whose last write failed is left as it is, and its
// sequence numbers are used again in the next one.
//
// The file "done" has the sequence number up to which Done was called. It is written seldom, so after
// a crash Next may return some records once more.
//
// # Damage
//
// A torn record at the end of the last segment was never acknowledged, and is ignored. For damage
// anywhere else, the reader looks for the next valid record, copies what it skips to a
// file quarantine-..., counts the sequence numbers that are missing, and continues. After a
// write or an fdatasync that failed, the segment is not written to again: the kernel may
// have dropped the data, and a second fdatasync would not tell (fsyncgate; see Rebello et
// al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
package spool
