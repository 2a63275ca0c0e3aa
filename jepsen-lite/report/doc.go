// Package report writes what is left of a round for people: index.html with
// plots over the faults, the record as JSON lines and as EDN, the plan and what
// came of it, and the files of checkers that found something.
//
// Reading order: report.go, page.go, plot.go.
package report
