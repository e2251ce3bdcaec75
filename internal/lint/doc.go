// Package lint is the tests that hold the tree to its rules: who may import
// whom, what a worker may link, what the window engine may not do, and what no
// file may contain. Each rule is a function from what it looks at to
// violations, and is shown a tree that breaks it before it is shown ours.
package lint
