// Package api asks nodes over HTTP, one request over one connection at a time,
// and knows of each what became of it. It uses no http.Client: that one keeps
// connections, sends some requests again by itself and hides whether a byte went
// out, and each of these blurs what the record must say exactly.
//
// A request is never repeated here. What is not proven is Info: an answer that
// did not come in time, a connection that broke after a byte was written, a
// status that no node gives.
//
// Reading order: caller.go, conn.go, calls.go (the calls that the workloads
// make), stream.go.
package api
