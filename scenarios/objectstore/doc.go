// Package objectstore tests tensor stores on a real S3 server, versitygw, as a
// process of its own: it weighs too much, and starts too slowly, for the tests
// beside claimcheck. `make objectstore` at the root runs it; Go is enough.
package objectstore
