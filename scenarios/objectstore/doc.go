// Package objectstore tests tensor stores on a real S3 server, versitygw, which runs as a
// separate process. The server is too large and starts too slowly for the tests of package
// claimcheck. `make objectstore` at the root runs these tests; they need only Go.
package objectstore
