package claimcheck

import "errors"

// What the errors of a store wrap. Errors of the content's own reader and of
// the context are wrapped as they are.
var (
	// ErrUnavailable: the store does not answer, or not in time. Try later.
	ErrUnavailable = errors.New("the tensor store is not available")
	// ErrFull: the store has no room. Make some.
	ErrFull = errors.New("the tensor store is full")
	// ErrRefused: the store answers, and will answer the same until somebody
	// changes a setting or the store: credentials, certificate, region, bucket,
	// permissions, or a server that cannot do what is asked. Such an error wraps an
	// [oona.FieldError] that names the setting.
	ErrRefused = errors.New("the tensor store refuses")
	// ErrSpool: this process cannot write the content to $TMPDIR. Where that is
	// full, the error wraps ErrFull too.
	ErrSpool = errors.New("a tensor cannot be spooled")
	// ErrTooLarge: the tensor exceeds the store's limit.
	ErrTooLarge = errors.New("tensor too large")
	// ErrNotFound: the store has no tensor of this claim.
	ErrNotFound = errors.New("the tensor is not in the store")
	// ErrMismatch: the content is not what was claimed. Nothing of it is to be
	// believed.
	ErrMismatch = errors.New("the tensor's content is not what was claimed")
	// ErrForeign: the claim is not one that this store makes.
	ErrForeign = errors.New("not a claim of this tensor store")
)
