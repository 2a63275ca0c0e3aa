package store

// What the state machine does with a log is numbered, by levels. The members of
// a cluster may be of several versions while they are upgraded one by one, and
// have to make the same of every entry. So whatever a version adds (a command, a
// field of one, another answer to the same command, a record of a snapshot) is of
// a new level, and is neither used nor proposed before the state has that level.
// The state is raised to it by a Marker's settings, at one entry of the log, once
// every member has said that it knows it (raftnode/level.go). It never goes back.
//
// A version that does not know a level stops at the entry that raises to it, and
// reads no snapshot of it: it names both levels. It would rather be out of
// service than make something else of the log.
//
// With a new version that changes any of that:
//
//   - Level is one more, and what is added asks for it: a.settings.Level >= n.
//   - formatOf has a case for it, where snapshots have something new.
//   - A golden file of each format stays, and is read for ever.

// The levels so far:
//
//	1  configurations have the data folders of their members (raftnode/folder.go);
//	   the state machine does nothing else than at level 0

// Level is the newest level that this version knows.
const Level = 1

// formatOf is the format of the snapshots of a state of that level, and so the
// newest that is read by a version that knows no later one.
func formatOf(level uint64) uint32 {
	if level == 0 {
		return 2
	}
	return 3 // with the level
}

// Level is the state's level.
func (s *Store) Level() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.settings.Level
}

// KnownLevel is the newest level that this Store knows.
func (s *Store) KnownLevel() uint64 { return s.level }
