package store

import (
	"cmp"
	"slices"

	"trivet/trivetpb"
)

// writeLeases writes the records that stand before the versions: a version may
// name a lease only that was read.
func (v *View) writeLeases(out *recordWriter) {
	m := &trivetpb.SnapshotLease{}
	record := &trivetpb.SnapshotRecord{Record: &trivetpb.SnapshotRecord_Lease{Lease: m}}
	v.rest.leases.Scan(func(id uint64, l lease) bool {
		m.Id, m.TtlMs, m.DeadlineMs, m.Own, m.Lock = id, l.ttlMS, l.deadlineMS, l.own, keyBytes(l.lock)
		out.write(record)
		return out.err == nil
	})
}

// writeRest writes the records that stand behind the clocks.
func (v *View) writeRest(out *recordWriter) {
	v.writeLocks(out)
	v.rest.sessions.Scan(func(_ uint64, s *session) bool {
		writeSession(out, s)
		return out.err == nil
	})
	v.rest.keyed.Scan(func(_ string, k *keyed) bool {
		writeAnswer(out, &trivetpb.SnapshotAnswer{
			IdempotencyKey: keyBytes(k.key), Fingerprint: k.fingerprint[:], DeadlineMs: k.deadlineMS, Result: k.result,
		})
		return out.err == nil
	})
	if u := v.rest.upload; u != nil {
		for _, c := range u.chunks {
			out.write(&trivetpb.SnapshotRecord{Record: &trivetpb.SnapshotRecord_Upload{Upload: &trivetpb.SnapshotUpload{
				Upload: u.id, Offset: c.offset, Data: c.data, DeadlineMs: u.deadlineMS,
			}}})
		}
	}
}

// queueRecord is how many of those who wait one record holds: a queue may be
// a hundred megabytes long.
const queueRecord = 1000

// writeLocks writes each lock, and its queue in as many records as it needs.
func (v *View) writeLocks(out *recordWriter) {
	// The queues belong to the writer; but they are in the order of the tokens.
	type place struct {
		token uint64
		waiter
	}
	waiting := make([]place, 0, v.rest.waiters.Len())
	v.rest.waiters.Scan(func(token uint64, w waiter) bool {
		waiting = append(waiting, place{token, w})
		return true
	})
	slices.SortStableFunc(waiting, func(a, b place) int { return cmp.Compare(a.lock, b.lock) })
	v.rest.locks.Scan(func(name string, l lock) bool {
		held, _ := v.rest.leases.Get(l.lease)
		m := &trivetpb.SnapshotLock{
			Name:   keyBytes(name),
			Holder: &trivetpb.LockHolder{Token: l.token, Lease: l.lease, Owner: l.owner, TtlMs: held.ttlMS},
		}
		for ; len(waiting) > 0 && waiting[0].lock == name; waiting = waiting[1:] {
			if len(m.Queue) == queueRecord {
				out.write(lockRecord(m))
				m = &trivetpb.SnapshotLock{Name: m.Name}
			}
			w := waiting[0]
			m.Queue = append(m.Queue, &trivetpb.SnapshotWaiter{
				Waiter:     &trivetpb.LockHolder{Token: w.token, Owner: w.owner, TtlMs: w.ttlMS},
				DeadlineMs: w.deadlineMS,
			})
		}
		out.write(lockRecord(m))
		return out.err == nil
	})
}

func lockRecord(m *trivetpb.SnapshotLock) *trivetpb.SnapshotRecord {
	return &trivetpb.SnapshotRecord{Record: &trivetpb.SnapshotRecord_Lock{Lock: m}}
}

// writeSession writes a session, and its answers by seq.
func writeSession(out *recordWriter, s *session) {
	out.write(&trivetpb.SnapshotRecord{Record: &trivetpb.SnapshotRecord_Session{Session: &trivetpb.SnapshotSession{
		Id: s.id, TtlMs: s.ttlMS, DeadlineMs: s.deadlineMS, Ack: s.ack, Node: s.node,
	}}})
	for _, p := range s.pages {
		for i := range uint64(pageAnswers) {
			if r := p.answer(i); r != nil {
				writeAnswer(out, &trivetpb.SnapshotAnswer{Session: s.id, Seq: p.number*pageAnswers + i, Result: r})
			}
		}
	}
}

func writeAnswer(out *recordWriter, m *trivetpb.SnapshotAnswer) {
	out.write(&trivetpb.SnapshotRecord{Record: &trivetpb.SnapshotRecord_Answer{Answer: m}})
}
