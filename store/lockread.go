package store

import (
	"context"

	"trivet/trivetpb"
)

// LockHolder is who holds a lock, or waits for it.
type LockHolder struct {
	// Token is the fencing token: of the holders of one lock, a later one's is
	// greater. One who waits has it already, but holds nothing yet.
	Token uint64
	// Lease is the lease that the lock is held by; 0 for one who waits.
	Lease uint64
	Owner string
	TTLMS uint64
	// RemainingMS is what is left of the lease or, of one who waits, of the wait.
	RemainingMS uint64
}

// LockInfo is a lock that is held, with those who wait for it, first come first.
type LockInfo struct {
	Name string
	// Holder is never nil.
	Holder *LockHolder
	Queue  []LockHolder
}

// Lock returns who holds the lock, and up to queueLimit of those who wait for
// it. It is false where nobody holds it; then nobody waits either.
func (s *Store) Lock(name string, queueLimit int) (LockInfo, bool) { return LockInfo{}, false }

// AwaitLock waits until the token holds the lock, and says how. The error is a
// *trivetpb.Problem, LOCKED (with the holder, where there is one), as soon as
// the token neither holds the lock nor waits for it: its wait is over, it was
// cancelled, or what it held has ended. Else it is the context's.
//
// A token that this store has not seen drawn yet is waited for: whoever has it
// from another node's answer need not first wait for this node to catch up.
func (s *Store) AwaitLock(ctx context.Context, name string, token uint64) (LockHolder, error) {
	return LockHolder{}, &trivetpb.Problem{Code: trivetpb.Code_LOCKED}
}
