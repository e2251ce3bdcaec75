// Package registry tests the edges with a schema registry: a real one, Apicurio, and
// Confluent's own serializers in Python. `make registry-trial` at the root runs the test. It
// needs Java 17, Maven, which fetches the registry the first time (110 MB), and Python with
// the packages of `make python`.
package registry
