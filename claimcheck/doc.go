// Package claimcheck stores large tensors in a directory or in S3. The record on
// the bus then has an [oona.TensorClaim], which refers to the tensor.
//
// The key of a tensor is derived from its SHA-256. So the same tensor is stored
// once, and a forged claim is recognised without a request to the store. A claim
// names a bucket and a key, never a URL: a reader looks only into the store that
// it is configured with.
//
//	claim, fresh, err := store.CheckIn(ctx, body)   // fresh: it was not in the store
//	content, err := store.CheckOut(ctx, claim)      // its last Read verifies
//
// CheckIn returns once the tensor is durable. If it fails, it leaves nothing
// behind. If the store has an object with the key already, CheckIn compares it
// with the content, and replaces it if it differs. A directory compares all bytes
// each time. S3 compares the bytes of objects up to 8 MiB once per process and
// key, and otherwise only the size.
//
// The key is known after the last byte, but S3 needs it before the first. So
// content is spooled: in memory up to 1 MiB, and beyond that in an unlinked
// temporary file in $TMPDIR. That bounds the memory of a check-in, allows retries,
// and keeps slow senders away from the store. Content above 8 MiB is sent in
// parts, each with its checksum in a header.
//
// Errors distinguish outages, which may pass, from refusals ([ErrRefused]), which
// last until an operator changes the setting that the error names.
package claimcheck
