package trivetpb

// arena hands out zero values, side by side, and takes them back all at once.
type arena[T any] struct {
	of   []T
	used int
}

// arenaKept bounds what an arena keeps: as many operations as an entry has commands.
const arenaKept = 1024

func (a *arena[T]) next() *T {
	if a.used == len(a.of) {
		// Those before stay where they are, as long as they are in use.
		a.of, a.used = make([]T, min(max(8, 2*len(a.of)), arenaKept)), 0
	}
	a.used++
	return &a.of[a.used-1]
}

func (a *arena[T]) reset() {
	clear(a.of[:a.used])
	a.used = 0
}

// lists hands out empty slices of a capacity, one behind the other.
type lists[T any] struct{ arena[T] }

func (l *lists[T]) next(n int) []T {
	if n == 0 {
		return nil
	}
	if l.used+n > len(l.of) {
		if n > arenaKept {
			return make([]T, 0, n)
		}
		l.of, l.used = make([]T, max(n, min(max(8, 2*len(l.of)), arenaKept))), 0
	}
	l.used += n
	return l.of[l.used-n : l.used-n : l.used]
}
