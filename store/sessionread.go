package store

// HasSession says whether the session is open.
func (s *Store) HasSession(id uint64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.state.sessions.get(id)
	return ok
}
