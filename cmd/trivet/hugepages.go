package main

// What a start costs is mostly memory that is touched for the first time: the kernel
// makes a page for every 4 KiB, hundreds of thousands for a million keys on three
// nodes, which is a fifth of a start, and half of it on virtual machines where each is
// work for the host too. Linux makes 2 MiB at once where a process asks for it
// (transparent huge pages; most systems are set to "madvise", and then nobody gets
// them who does not ask). Go's runtime does not.
//
// So before a snapshot is restored a node asks for them for the memory that the state
// will be in: it allocates that much, touches none of it, asks, and lets the runtime
// have it for what comes. Whatever the runtime does with it is right, since this is
// advice about addresses, not about what is there. Once the snapshot
// is restored the advice is taken back: what has huge pages keeps them, and the kernel
// makes no new ones, so that memory that was given back stays so.

const (
	// stateOfFile is how many bytes of memory there are to a byte of a snapshot file,
	// about: three where values cannot be compressed, and more where they can. Too many
	// cost addresses alone, too few have the rest in small pages.
	stateOfFile = 6
	// leastHuge is less than which is not worth asking for.
	leastHuge = 32 << 20
	hugePage  = 2 << 20
)

// hugeBytes is for how much of memory huge pages are asked for, for a snapshot of so
// many bytes, where so many are free; 0 for none. A kernel may refuse a process more
// addresses than there is memory, and Go's runtime ends where it is refused any: half
// of what is free it would need for the state.
func hugeBytes(file, free int64) int {
	n := min(file, free) * stateOfFile // no overflow: free is a machine's memory
	if n = min(n, free/2); n < leastHuge {
		return 0
	}
	return int(n)
}

// addresses are those from begin to end, of whole huge pages.
type addresses struct{ begin, end uintptr }

// wholePages is the huge pages that lie in so many bytes from at on.
func wholePages(at, bytes uintptr) addresses {
	a := addresses{(at + hugePage - 1) &^ (hugePage - 1), (at + bytes) &^ (hugePage - 1)}
	a.end = max(a.begin, a.end)
	return a
}
