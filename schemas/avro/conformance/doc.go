// Package conformance has the conformance files: what a client of Oona must write and
// read, as data for clients in any language. README.md describes the files.
package conformance
