// Package mutant breaks Trivet on purpose, to prove that the tests would
// notice. A build with the tag "mutants" breaks in the one way that the
// environment variable TRIVET_MUTANT names; every other build holds none of
// this code. `make mutants` runs the tests against each and expects a failure.
package mutant
