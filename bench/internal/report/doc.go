// Package report says what a run has measured: as JSON with everything (data.go), as
// tables in Markdown (table.go, details.go), as plots (plot.go, svg.go), and in a
// marked section of a document (section.go). All but the first are made from the
// JSON, so that they can be made again without a run.
package report
