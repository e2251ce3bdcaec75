// Package compose tests compose.yaml: see README.md.
package compose
