package store

// LeaseInfo is a lease as it stands at the replicated clock.
type LeaseInfo struct {
	ID, TTLMS uint64
	// RemainingMS is what is left until its deadline. It is 0 for one that is
	// due and waits for the command that ends it; until then the lease is alive.
	RemainingMS uint64
	// Keys is how many keys are attached to it.
	Keys uint64
	// Lock is the name of the lock that the lease holds; empty for none.
	Lock string
}

// Lease returns the lease, and whether there is one of this id.
func (s *Store) Lease(id uint64) (LeaseInfo, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, ok := s.state.leases.get(id)
	if !ok {
		return LeaseInfo{}, false
	}
	return s.state.leaseInfo(id, l), true
}

func (st *state) leaseInfo(id uint64, l lease) LeaseInfo {
	return LeaseInfo{
		ID:          id,
		TTLMS:       l.ttlMS,
		RemainingMS: st.remaining(l.deadlineMS),
		Keys:        uint64(l.run.keys.Len()),
		Lock:        l.lock,
	}
}

func (st *state) remaining(deadlineMS uint64) uint64 {
	return max(deadlineMS, st.clockMS) - st.clockMS
}

// LeaseKeys returns up to limit keys of the lease in byte order, whether there
// are more, and whether there is such a lease. It holds the store's read lock
// for the time that it takes to list them: a caller bounds the limit.
func (s *Store) LeaseKeys(id uint64, limit int) (keys []string, more bool, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, ok := s.state.leases.get(id)
	if !ok {
		return nil, false, false
	}
	l.run.keys.Scan(func(key string, _ struct{}) bool {
		if more = len(keys) >= limit; more {
			return false
		}
		keys = append(keys, key)
		return true
	})
	return keys, more, true
}

// Leases returns up to limit leases by id, the first one after the id that is
// given (0: from the first on), and whether there are more. It holds the
// store's read lock for the time that it takes to list them: a caller bounds
// the limit.
func (s *Store) Leases(after uint64, limit int) (infos []LeaseInfo, more bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if after == never {
		return nil, false
	}
	s.state.leases.m.Ascend(after+1, func(id uint64, l lease) bool {
		if more = len(infos) >= limit; more {
			return false
		}
		infos = append(infos, s.state.leaseInfo(id, l))
		return true
	})
	return infos, more
}
