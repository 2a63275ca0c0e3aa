package store

// HasSession says whether the session is open.
func (s *Store) HasSession(id uint64) bool { return false }
