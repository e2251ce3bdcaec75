// Package claimcheck keeps tensors by their content: large payloads go into a
// directory or into S3, and what travels over the bus is an [oona.TensorClaim].
//
// A tensor's key is derived from its SHA-256, so that the same tensor is kept
// once, whoever checks it in and however often, and a claim can be told from a
// forged one without asking anybody. A claim names a bucket and a key, never a
// URL: whoever reads one asks the store that they are configured with.
//
//	claim, fresh, err := store.CheckIn(ctx, body)   // kept, or there already
//	content, err := store.CheckOut(ctx, claim)      // its last Read verifies
//
// CheckIn returns once the tensor is durable. What fails leaves nothing behind.
// What is there already is read, as the right bytes are in hand, and replaced if
// it differs: always in a directory; in S3 once a key, up to 8 MiB, else by its size.
//
// The key is known when the last byte has been read, and S3 wants it before the
// first. So content is spooled on its way in: in memory up to 1 MiB, beyond
// that in a temporary file without a name ($TMPDIR). That bounds the memory of
// a check-in, lets a part be sent again, and spares the store the wait for a
// slow sender. Above 8 MiB it is sent in parts, each with its checksum in a header.
//
// Errors tell outages, which pass, from refusals (ErrRefused), which stay until
// somebody changes the setting that they name.
package claimcheck
