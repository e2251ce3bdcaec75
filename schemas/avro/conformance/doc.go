// Package conformance has the conformance files. They are test cases for clients in any
// language: data that a client must write and read. README.md describes the files.
package conformance
