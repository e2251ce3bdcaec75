package claimcheck

import "errors"

// Errors that the errors of a store wrap. The store also wraps the errors of the
// content's reader and of the context.
var (
	// ErrUnavailable means that the store does not answer, or does not answer in
	// time. Try again later.
	ErrUnavailable = errors.New("the tensor store is not available")
	// ErrFull means that the store has no space left.
	ErrFull = errors.New("the tensor store is full")
	// ErrRefused means that the store refuses the request, and will refuse it
	// until an operator changes a setting or the store. The cause can be the
	// credentials, the certificate, the region, the bucket, the permissions, or a
	// server that does not support the request. The error wraps an
	// [oona.FieldError] that names the setting.
	ErrRefused = errors.New("the tensor store refuses the request")
	// ErrSpool means that this process cannot write the content to $TMPDIR. If
	// the disk is full, the error wraps ErrFull too.
	ErrSpool = errors.New("a tensor cannot be spooled")
	// ErrTooLarge means that the tensor exceeds the store's limit.
	ErrTooLarge = errors.New("tensor too large")
	// ErrNotFound means that the store does not have the tensor of the claim.
	ErrNotFound = errors.New("the tensor is not in the store")
	// ErrMismatch means that the content does not match its claim. Do not use any
	// of it.
	ErrMismatch = errors.New("the content of the tensor does not match its claim")
	// ErrForeign means that the claim is of another store, or is not valid.
	ErrForeign = errors.New("not a claim of this tensor store")
)
