package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// progress shows, on a terminal alone, how many bytes have come through: one
// line, written over a few times a second.
type progress struct {
	w    io.Writer // nil: nobody is looking
	what string

	mu    sync.Mutex
	shown time.Time
	wrote bool
}

func newProgress(w io.Writer, what string) *progress {
	p := &progress{what: what}
	if file, ok := w.(*os.File); ok && isTerminal(file) {
		p.w = file
	}
	return p
}

// at takes the number of bytes. It may be called by any goroutine.
func (p *progress) at(bytes int64) {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.shown) < 200*time.Millisecond {
		return
	}
	p.shown, p.wrote = time.Now(), true
	fmt.Fprintf(p.w, "\r%s %.1f MiB ", p.what, float64(bytes)/(1<<20))
}

// end takes the line away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wrote {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.wrote = false
	}
}
