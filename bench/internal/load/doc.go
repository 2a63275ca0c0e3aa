// Package load is the load generator: closed loops, and what it costs to run
// them.
//
// Every system is loaded by the same code: Run starts a number of callers, each of
// which sends its next request when it has the answer to the last, lets them warm
// up, and counts what ends within the time that is measured. Latencies are those
// that the callers saw. Around the measured time the CPU seconds of the servers'
// processes and of this one are read from the kernel.
//
// closed.go has the loop, summary.go what comes of it, cpu.go the CPU seconds,
// keys.go the keys and values.
package load
