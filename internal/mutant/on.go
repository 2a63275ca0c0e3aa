//go:build mutants

package mutant

import (
	"os"
	"sync/atomic"
)

var chosen = os.Getenv("TRIVET_MUTANT")

// On says whether the program is to be broken in this way.
func On(name string) bool { return name == chosen }

// MapOrder returns the numbers below n in an order that Go chose for a map, which
// no two processes share. It is here, as the state machine may have no map.
func MapOrder(n int) []int {
	numbers := map[int]bool{}
	for i := range n {
		numbers[i] = true
	}
	var order []int
	for i := range numbers {
		order = append(order, i)
	}
	return order
}

var note atomic.Uint64

// Note keeps a number for Noted: what only a broken program remembers.
func Note(v uint64) { note.Store(v) }

// Noted is the last one.
func Noted() uint64 { return note.Load() }
