// Package rows is what is measured: the rows of the comparison, and how each is run.
//
// rows.go lists them with what Trivet is to reach. run.go runs them: in rounds, each
// system alone on the machine at its turn, so that what changes on the machine in
// the meantime changes for all. timed.go has the closed loops on a small set of keys,
// watch.go the fan-out, failover.go the gap after a kill, million.go what depends on
// how much is stored: memory, restart, a backup under load, and the loops at several
// sizes.
package rows
