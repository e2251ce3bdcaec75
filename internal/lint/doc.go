// Package lint has the tests that hold the source to its rules: what a package may
// import, what a worker may link, what the window engine may not do, what no file may
// contain, and which names are public. Each rule is a function that returns
// violations, and its test shows it source that breaks the rule before it looks at
// ours.
package lint
