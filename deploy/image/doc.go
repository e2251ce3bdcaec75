// Package image has the tests of Oona's container images; see README.md.
package image
