package claimcheck

import "errors"

// What the errors of a store wrap. Errors of the content's own reader and of
// the context are wrapped as they are.
var (
	// ErrUnavailable: the store does not answer, or not in time. Try later.
	ErrUnavailable = errors.New("the tensor store is not available")
	// ErrFull: the store has no room. Make some.
	ErrFull = errors.New("the tensor store is full")
	// ErrDenied: the store does not admit us: credentials, certificate, or a
	// bucket that does not exist. Trying again does not help.
	ErrDenied = errors.New("the tensor store denies access")
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
