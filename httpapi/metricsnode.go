package httpapi

import (
	"github.com/prometheus/client_golang/prometheus"

	"trivet/raftnode"
	"trivet/store"
)

// nodeCollector reads what the node and its state count when somebody asks.
type nodeCollector struct {
	s    *Server
	rows []nodeRow
}

// nodeRow is one family: its description, and what it is made of.
type nodeRow struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	// collect emits its values, one for each set of labels.
	collect func(f *nodeFigures, emit func(value float64, labels ...string))
	// histogram is set, instead, where it is one.
	histogram func(f *nodeFigures) raftnode.Histogram
}

// nodeFigures is one picture of the node.
type nodeFigures struct {
	raftnode.Stats
	state    store.Stats
	watchers int
	uptime   float64
	draining bool
}

func newNodeCollector(s *Server) *nodeCollector {
	c := &nodeCollector{s: s}
	row := func(kind prometheus.ValueType, name, help string, collect func(*nodeFigures, func(float64, ...string)), labels ...string) {
		c.rows = append(c.rows, nodeRow{desc: prometheus.NewDesc(name, help, labels, nil), kind: kind, collect: collect})
	}
	gauge := func(name, help string, value func(*nodeFigures) float64) {
		row(prometheus.GaugeValue, name, help, func(f *nodeFigures, emit func(float64, ...string)) { emit(value(f)) })
	}
	counter := func(name, help string, value func(*nodeFigures) uint64) {
		row(prometheus.CounterValue, name, help, func(f *nodeFigures, emit func(float64, ...string)) { emit(float64(value(f))) })
	}
	histogram := func(name, help string, value func(*nodeFigures) raftnode.Histogram) {
		c.rows = append(c.rows, nodeRow{desc: prometheus.NewDesc(name, help, nil, nil), histogram: value})
	}

	gauge("trivet_uptime_seconds", "Time since the node started.", func(f *nodeFigures) float64 { return f.uptime })
	gauge("trivet_node_failed", "1 where the node has taken itself out of service, else 0.", func(f *nodeFigures) float64 { return bit(f.Failed) })
	gauge("trivet_node_draining", "1 where the node is about to stop, else 0.", func(f *nodeFigures) float64 { return bit(f.draining) })

	gauge("trivet_raft_is_leader", "1 where the node leads and serves as the leader, else 0.", func(f *nodeFigures) float64 { return bit(f.Leading) })
	gauge("trivet_raft_has_leader", "1 where the node knows a leader, else 0.", func(f *nodeFigures) float64 { return bit(f.HasLeader) })
	gauge("trivet_raft_term", "The term that the node is in.", func(f *nodeFigures) float64 { return float64(f.Term) })
	gauge("trivet_raft_commit_index", "Last log entry that the node knows to be committed.", func(f *nodeFigures) float64 { return float64(f.CommitIndex) })
	gauge("trivet_raft_applied_index", "Last log entry that the node has applied.", func(f *nodeFigures) float64 { return float64(f.AppliedIndex) })
	gauge("trivet_raft_last_index", "Last entry of the node's log.", func(f *nodeFigures) float64 { return float64(f.LastIndex) })
	gauge("trivet_raft_unapplied_entries", "Entries that the node knows to be committed and has not applied.", func(f *nodeFigures) float64 {
		return float64(f.CommitIndex - min(f.CommitIndex, f.AppliedIndex))
	})
	counter("trivet_raft_leader_changes_total", "Changes of leader that the node has seen.", func(f *nodeFigures) uint64 { return f.LeaderChanges })
	counter("trivet_raft_elections_started_total", "Times that the node stood for election.", func(f *nodeFigures) uint64 { return f.Elections })
	counter("trivet_raft_leaders_replaced_total", "Times that the node stood for election because a majority had agreed that the leader is dead or silent.", func(f *nodeFigures) uint64 { return f.Replacements })
	counter("trivet_raft_elections_won_total", "Elections that the node won.", func(f *nodeFigures) uint64 { return f.Wins })
	peer := func(name, help string, value func(raftnode.PeerStats) float64) {
		row(prometheus.GaugeValue, name, help, func(f *nodeFigures, emit func(float64, ...string)) {
			for _, p := range f.Peers {
				emit(value(p), p.ID)
			}
		}, "peer")
	}
	peer("trivet_raft_peer_applied_index", "On the leader: last entry that the peer had applied when it last said so.", func(p raftnode.PeerStats) float64 { return float64(p.AppliedIndex) })
	peer("trivet_raft_peer_lag_entries", "On the leader: committed entries that the peer had not applied when it last said so.", func(p raftnode.PeerStats) float64 { return float64(p.Lag) })
	peer("trivet_raft_peer_last_contact_seconds", "On the leader: time since the peer last said how far it is, which it does every second.", func(p raftnode.PeerStats) float64 { return p.LastContact.Seconds() })

	gauge("trivet_proposals_pending", "Commands that wait to be written or are under way, those of other members included.", func(f *nodeFigures) float64 { return float64(f.Pending) })
	gauge("trivet_proposals_pending_bytes", "What those count for in the queue.", func(f *nodeFigures) float64 { return float64(f.PendingBytes) })
	counter("trivet_proposals_committed_total", "Commands of this node's own callers that were committed and applied, whatever came of it.", func(f *nodeFigures) uint64 { return f.ProposalsCommitted })
	row(prometheus.CounterValue, "trivet_proposals_failed_total", "Commands of this node's own callers that were not applied, or whose outcome is unknown, by reason.",
		func(f *nodeFigures, emit func(float64, ...string)) {
			for why, count := range f.ProposalsFailed {
				emit(float64(count), why.String())
			}
		}, "reason")
	counter("trivet_proposals_retried_total", "Commands that went back to the queue to go out again.", func(f *nodeFigures) uint64 { return f.Retried })
	counter("trivet_proposals_forwarded_total", "Commands sent on to the leader.", func(f *nodeFigures) uint64 { return f.Forwarded })
	counter("trivet_proposals_received_total", "Commands that other members sent on to this one.", func(f *nodeFigures) uint64 { return f.Received })
	counter("trivet_forwards_total", "Requests to the leader that commands were sent on in.", func(f *nodeFigures) uint64 { return f.Forwards })
	counter("trivet_groups_held_total", "Groups of writes that were held back for callers of the one before, who were expected to ask again.", func(f *nodeFigures) uint64 { return f.Held })
	gauge("trivet_processors_crowded", "1 where what the node has to do waits for processors for a good part of the time that it runs, so that it has few groups of writes and large ones, else 0.", func(f *nodeFigures) float64 { return bit(f.Crowded) })
	histogram("trivet_entry_commands", "Commands in one log entry that the node proposed as the leader.", func(f *nodeFigures) raftnode.Histogram { return f.EntryCommands })
	histogram("trivet_entry_size_bytes", "Bytes of one log entry that the node proposed as the leader.", func(f *nodeFigures) raftnode.Histogram { return f.EntryBytes })

	histogram("trivet_log_append_duration_seconds", "Time that one write to the log took, its sync included.", func(f *nodeFigures) raftnode.Histogram { return f.AppendSeconds })
	counter("trivet_log_appended_entries_total", "Entries written to the log.", func(f *nodeFigures) uint64 { return f.AppendedEntries })
	counter("trivet_log_appended_bytes_total", "Bytes of the entries written to the log.", func(f *nodeFigures) uint64 { return f.AppendedBytes })
	histogram("trivet_apply_duration_seconds", "Time that it took to apply one log entry.", func(f *nodeFigures) raftnode.Histogram { return f.ApplySeconds })
	counter("trivet_applied_commands_total", "Commands applied.", func(f *nodeFigures) uint64 { return f.AppliedCommands })
	histogram("trivet_snapshot_duration_seconds", "Time that it took to take one snapshot of the state.", func(f *nodeFigures) raftnode.Histogram { return f.SnapshotSeconds })
	counter("trivet_snapshot_failures_total", "Snapshots that could not be taken.", func(f *nodeFigures) uint64 { return f.SnapshotFailures })
	counter("trivet_snapshots_restored_total", "Times that the state was replaced by a snapshot, at the start or by the leader's.", func(f *nodeFigures) uint64 { return f.SnapshotsRestored })
	gauge("trivet_snapshot_size_bytes", "Size of the newest snapshot on disk.", func(f *nodeFigures) float64 { return float64(f.SnapshotBytes) })

	outcome := func(name, help string, done, failed func(*nodeFigures) uint64) {
		row(prometheus.CounterValue, name, help, func(f *nodeFigures, emit func(float64, ...string)) {
			emit(float64(done(f)), "done")
			emit(float64(failed(f)), "failed")
		}, "result")
	}
	outcome("trivet_read_index_confirmations_total", "Rounds in which the leader asked the voters whether it still leads, by result.",
		func(f *nodeFigures) uint64 { return f.Confirmations }, func(f *nodeFigures) uint64 { return f.ConfirmationsFailed })
	counter("trivet_read_index_confirmed_by_asker_total", "Read indexes that the leader told without a round, as its word and the asker's are a majority.", func(f *nodeFigures) uint64 { return f.ConfirmedByAsker })
	outcome("trivet_read_index_requests_total", "Requests for a read index to the leader, each for all reads that waited, by result.",
		func(f *nodeFigures) uint64 { return f.Asks }, func(f *nodeFigures) uint64 { return f.AsksFailed })
	row(prometheus.CounterValue, "trivet_reads_total", "Reads that were fresh enough, a batch counting as one, by the consistency that they were served with.",
		func(f *nodeFigures, emit func(float64, ...string)) {
			for c, count := range f.Reads {
				emit(float64(count), consistencies[c])
			}
		}, "consistency")
	row(prometheus.CounterValue, "trivet_read_failures_total", "Reads that could not be made fresh enough, by code.",
		func(f *nodeFigures, emit func(float64, ...string)) {
			for code, count := range f.ReadsFailed {
				emit(float64(count), code.Info().Name)
			}
		}, "code")
	histogram("trivet_bounded_read_staleness_seconds", "How old the state was at most when a bounded read was served without a confirmation.", func(f *nodeFigures) raftnode.Histogram { return f.BoundedStaleness })
	row(prometheus.GaugeValue, "trivet_state_staleness_seconds", "How old the state is at most, by the last confirmation; absent where there was none since the start.",
		func(f *nodeFigures, emit func(float64, ...string)) {
			if f.Proven {
				emit(f.Staleness.Seconds())
			}
		})

	counter("trivet_state_hash_comparisons_total", "Comparisons of the state's hash with the leader's, or with a follower's.", func(f *nodeFigures) uint64 { return f.HashComparisons })
	counter("trivet_state_hash_mismatches_total", "Comparisons that found another hash at the same index.", func(f *nodeFigures) uint64 { return f.HashMismatches })
	gauge("trivet_state_diverged", "1 where the node took itself out of service because its state is not that of the others, else 0.", func(f *nodeFigures) float64 { return bit(f.Diverged) })

	state := func(name, help string, value func(*store.Stats) uint64) {
		gauge(name, help, func(f *nodeFigures) float64 { return float64(value(&f.state)) })
	}
	state("trivet_revision", "The revision of the state.", func(s *store.Stats) uint64 { return s.Revision })
	state("trivet_state_level", "The level of the state machine that all members were found to know.", func(s *store.Stats) uint64 { return s.Settings.Level })
	state("trivet_compact_revision", "The oldest revision that can be read.", func(s *store.Stats) uint64 { return s.CompactRevision })
	state("trivet_history_revisions", "Old revisions that are kept.", func(s *store.Stats) uint64 { return s.HistoryRevisions })
	state("trivet_history_bytes", "Bytes of the old versions that are kept.", func(s *store.Stats) uint64 { return s.HistoryBytes })
	state("trivet_keys", "Live keys.", func(s *store.Stats) uint64 { return s.Keys })
	state("trivet_data_bytes", "Live data, as the quota counts it.", func(s *store.Stats) uint64 { return s.Bytes })
	state("trivet_quota_bytes", "Bound on the live data; 0 for none.", func(s *store.Stats) uint64 { return s.Settings.QuotaBytes })
	state("trivet_leases", "Leases, those of locks and of single puts included.", func(s *store.Stats) uint64 { return s.Leases })
	state("trivet_locks", "Locks that are held.", func(s *store.Stats) uint64 { return s.Locks })
	state("trivet_lock_waiters", "Places in the queues for locks.", func(s *store.Stats) uint64 { return s.Waiters })
	state("trivet_sessions", "Open sessions, those of the nodes included.", func(s *store.Stats) uint64 { return s.Sessions })
	state("trivet_remembered_answers", "Answers remembered for repeats, of sessions and of idempotency keys.", func(s *store.Stats) uint64 { return s.Answers })
	state("trivet_remembered_answer_bytes", "Bytes of those.", func(s *store.Stats) uint64 { return s.AnswerBytes })
	gauge("trivet_replicated_clock_seconds", "The replicated clock, by which things expire.", func(f *nodeFigures) float64 { return float64(f.state.ClockMS) / 1000 })
	gauge("trivet_watchers", "Watchers of the state on this node.", func(f *nodeFigures) float64 { return float64(f.watchers) })
	return c
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (c *nodeCollector) Describe(ch chan<- *prometheus.Desc) {
	for i := range c.rows {
		ch <- c.rows[i].desc
	}
}

func (c *nodeCollector) Collect(ch chan<- prometheus.Metric) {
	node := c.s.node
	f := &nodeFigures{
		Stats:    node.Stats(),
		state:    node.Store().Stats(),
		watchers: node.Store().Watchers(),
		uptime:   node.Status().Uptime.Seconds(),
		draining: c.s.leaving.Load() || c.s.draining.Load(),
	}
	for i := range c.rows {
		r := &c.rows[i]
		if r.histogram != nil {
			h := r.histogram(f)
			buckets := make(map[float64]uint64, len(h.Bounds))
			for i, bound := range h.Bounds {
				buckets[bound] = h.Counts[i]
			}
			ch <- prometheus.MustNewConstHistogram(r.desc, h.Count, h.Sum, buckets)
			continue
		}
		r.collect(f, func(value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(r.desc, r.kind, value, labels...)
		})
	}
}
