package store

import (
	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// marker takes over the settings that a new term's leader brings; a marker
// without settings leaves them. It changes no key and makes no revision. The
// term is for the leader, no part of the state.
//
// The first seed that reaches the state stays: ids that were drawn from it, and
// those to come, must not meet.
func (a *applier) marker(m *trivetpb.Marker) {
	if a.seed == 0 {
		a.seed = m.Seed
	}
	s := m.Settings
	if s == nil {
		return
	}
	a.settings = Settings{
		HistoryMS:        s.HistoryMs,
		HistoryRevisions: s.HistoryRevisions,
		QuotaBytes:       s.QuotaBytes,
		Level:            max(a.settings.Level, s.Level),
	}
	if mutant.On("level-goes-back") {
		a.settings.Level = s.Level
	}
	// 0 is the default: history cannot be switched off, only made as short as
	// a revision or a millisecond.
	if a.settings.HistoryMS == 0 {
		a.settings.HistoryMS = DefaultHistoryMS
	}
	if a.settings.HistoryRevisions == 0 {
		a.settings.HistoryRevisions = DefaultHistoryRevisions
	}
}
