// Package model says what a window engine must make of a log, in the simplest way:
// it keeps the records of open windows, and computes everything from them with
// plain loops, maps and big numbers.
//
// It is the specification that tests compare package windows with: the property
// tests, the simulation of crashing workers, the scripts and the scenarios on real
// brokers. So it shares no code with the engine. Of package windows it uses the
// types and constants of records, configurations and outcomes, and no function;
// internal/lint checks that. It knows nothing of commits and replays, as a
// worker's crash must make no difference.
//
// A [Mutant] puts a plausible error into the model. A test that compares an engine
// with a model must notice each of them.
package model
