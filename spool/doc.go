// Package spool keeps records on a local disk until they are sent to another system. A spool is a
// queue within one process. It survives the end of the process, and a crash of the operating
// system.
//
//	Append ──▶ one writer: all waiting records, one write, one fdatasync ──▶ segment files ──▶ Next, Done
//
// # Promise
//
// When Append returns nil, the record is on disk. Next returns it, and after each start
// returns it again, until Done has been called for it. Next returns records in the order of
// their sequence numbers, which have no gaps. If Append has returned an error, Next does not
// return the record, unless the process crashes: then it may do so after the next start.
//
// A directory belongs to one process at a time, which locks it.
//
// Queues are several spools in one directory. They share one limit of the total size.
//
// # Files
//
// A segment is a file with a header and records. The numbers of segments ascend. All
// numbers in a file are little-endian.
//
//	name     number-first sequence-salt.seg
//	header   "oonaspl1" · number u64 · first sequence u64 · salt [16]byte · CRC-32C u32 of what precedes it
//	record   length u32 · CRC-32C u32 of (salt, sequence, length, body) · sequence u64 · body
//
// The salt is random. It distinguishes the records of this file from bytes that an older file has left
// on the disk. In the previous segment, only the records below the first sequence number of this
// segment are valid. So a segment whose last write failed is left unchanged, and the next segment uses
// the sequence numbers of the failed records again.
//
// The file "done" has the sequence number up to which Done was called. It is written rarely,
// so Next may return some records again after a crash.
//
// # Damage
//
// An incomplete record at the end of the last segment was never acknowledged, and is ignored. A record
// is incomplete if its end is missing, or if it has only zeros. Any other bytes at the end may have
// been an acknowledged record, so they are copied to a file quarantine-... when the spool is opened. If
// another part is damaged, the reader searches for the next valid record, copies the bytes that it
// skips to a file quarantine-..., counts the missing sequence numbers, and continues. These files count
// towards the limit, so that they cannot fill the disk. The spool never deletes them. If there is no
// space for a copy of the bytes, the whole file is renamed to quarantine-... after its other records
// are done.
//
// After a write or an fdatasync has failed, the segment is not written to again: the kernel may
// have dropped the data, and a second fdatasync would not report that (fsyncgate; see Rebello et
// al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
package spool
