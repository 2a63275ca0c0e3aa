package main

import (
	"io"
	"sync"
)

// holdBack keeps what is written to it until release. A node that cannot start
// says so in one line; what its parts had logged up to there would hide it.
type holdBack struct {
	mu   sync.Mutex
	out  io.Writer
	held []byte
	// through is set once what is written goes out at once.
	through bool
}

// Write never keeps p itself.
func (h *holdBack) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.through {
		return h.out.Write(p)
	}
	h.held = append(h.held, p...)
	return len(p), nil
}

// release lets everything out, now and from now on.
func (h *holdBack) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.through = true
	// A log that cannot be written is nothing to stop for.
	_, _ = h.out.Write(h.held)
	h.held = nil
}
