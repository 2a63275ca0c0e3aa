package store

import (
	"cmp"
	"maps"
	"math"
	"math/bits"
	"slices"

	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// modelRest is what a model has beside its items. Which keys a lease has, only
// the items say.
type modelRest struct {
	seed, nextID, nextToken uint64
	leases                  map[uint64]*modelLease
	locks                   map[string]modelHolder
	waiters                 []modelWaiter // in the order in which they came
	sessions                map[uint64]*modelSession
	keys                    map[string]*modelKey
	upload                  *modelUpload
}

type modelLease struct {
	ttl, deadline uint64
	own           bool
	lock          string
}

type modelHolder struct {
	token, lease uint64
	owner        string
}

type modelWaiter struct {
	lock, owner          string
	token, ttl, deadline uint64
}

type modelSession struct {
	ttl, deadline, ack uint64
	node               bool
	answers            map[uint64]*trivetpb.Result
}

type modelKey struct {
	fingerprint string
	deadline    uint64
	result      *trivetpb.Result
}

type modelUpload struct {
	id, deadline uint64
	data         string
}

// modelBackup is what a snapshot file gives to a RestoreCommit.
type modelBackup struct {
	state    map[string]Item
	revision uint64
	rest     *modelRest
}

func newModelRest() *modelRest {
	return &modelRest{
		leases: map[uint64]*modelLease{}, locks: map[string]modelHolder{},
		sessions: map[uint64]*modelSession{}, keys: map[string]*modelKey{},
	}
}

func (r *modelRest) clone() *modelRest {
	c := *r
	c.leases, c.sessions = map[uint64]*modelLease{}, map[uint64]*modelSession{}
	for id, l := range r.leases {
		copied := *l
		c.leases[id] = &copied
	}
	for id, s := range r.sessions {
		copied := *s
		copied.answers = maps.Clone(s.answers)
		c.sessions[id] = &copied
	}
	c.locks, c.keys, c.waiters = maps.Clone(r.locks), maps.Clone(r.keys), slices.Clone(r.waiters)
	if r.upload != nil {
		copied := *r.upload
		c.upload = &copied
	}
	return &c
}

// draw is the rule of ids, written down a second time.
func (r *modelRest) draw() uint64 {
	for {
		z := r.seed + r.nextID*11400714819323198485
		r.nextID++
		z = (z ^ z>>30) * 13787848793156543929
		z = (z ^ z>>27) * 10723151780598845931
		id := (z ^ z>>31) % (1 << 52)
		if id != 0 && r.leases[id] == nil && r.sessions[id] == nil {
			return id
		}
	}
}

func (w *modelWork) grant(ttl uint64, own bool, lock string) uint64 {
	id := w.rest.draw()
	w.rest.leases[id] = &modelLease{ttl: ttl, deadline: w.clock + ttl, own: own, lock: lock}
	return id
}

func leased(state map[string]Item, lease uint64) (keys []string) {
	for k, i := range state {
		if i.Lease == lease {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func (w *modelWork) endOrphans() {
	for id, l := range w.rest.leases {
		if l.own && len(leased(w.state, id)) == 0 {
			delete(w.rest.leases, id)
		}
	}
}

func (w *modelWork) endLease(id uint64) (deleted uint64) {
	for _, key := range leased(w.state, id) {
		delete(w.state, key)
		w.changed = true
		deleted++
	}
	lock := w.rest.leases[id].lock
	delete(w.rest.leases, id)
	if lock == "" {
		return deleted
	}
	delete(w.rest.locks, lock)
	i := slices.IndexFunc(w.rest.waiters, func(m modelWaiter) bool { return m.lock == lock })
	if i >= 0 {
		next := w.rest.waiters[i]
		w.rest.waiters = slices.Delete(w.rest.waiters, i, i+1)
		w.hold(lock, next.token, next.owner, next.ttl)
	}
	return deleted
}

func (w *modelWork) hold(lock string, token uint64, owner string, ttl uint64) {
	w.rest.locks[lock] = modelHolder{token: token, owner: owner, lease: w.grant(ttl, false, lock)}
}

func (r *modelRest) holder(lock string) *trivetpb.LockHolder {
	h := r.locks[lock]
	return &trivetpb.LockHolder{Token: h.token, Lease: h.lease, Owner: h.owner, TtlMs: r.leases[h.lease].ttl}
}

func lockResult(h *trivetpb.LockHolder, waiting bool) *trivetpb.Result {
	return &trivetpb.Result{Result: &trivetpb.Result_Lock{Lock: &trivetpb.LockResult{Holder: h, Waiting: waiting}}}
}

func leaseResult(id, ttl, deleted uint64) *trivetpb.Result {
	return &trivetpb.Result{Result: &trivetpb.Result_Lease{Lease: &trivetpb.LeaseResult{Lease: id, TtlMs: ttl, Deleted: deleted}}}
}

func sessionResult(id, ttl uint64) *trivetpb.Result {
	return &trivetpb.Result{Result: &trivetpb.Result_Session{Session: &trivetpb.SessionResult{Session: id, TtlMs: ttl}}}
}

// plain does what is no operation on keys.
func (w *modelWork) plain(c *trivetpb.Command) *trivetpb.Result {
	rest := w.rest
	switch c := c.Command.(type) {
	case *trivetpb.Command_LeaseGrant:
		return leaseResult(w.grant(c.LeaseGrant.TtlMs, false, ""), c.LeaseGrant.TtlMs, 0)
	case *trivetpb.Command_LeaseKeepAlive:
		id := c.LeaseKeepAlive.Lease
		l := rest.leases[id]
		if l == nil {
			return fail(trivetpb.Code_LEASE_NOT_FOUND)
		}
		l.deadline = w.clock + l.ttl
		return leaseResult(id, l.ttl, 0)
	case *trivetpb.Command_LeaseRevoke:
		id := c.LeaseRevoke.Lease
		l := rest.leases[id]
		if l == nil {
			return fail(trivetpb.Code_LEASE_NOT_FOUND)
		}
		return leaseResult(id, l.ttl, w.endLease(id))
	case *trivetpb.Command_LockAcquire:
		name, o := string(c.LockAcquire.Name), c.LockAcquire
		if _, held := rest.locks[name]; !held {
			rest.nextToken++
			w.hold(name, rest.nextToken, o.Owner, o.TtlMs)
			return lockResult(rest.holder(name), false)
		}
		if o.WaitMs == 0 {
			r := fail(trivetpb.Code_LOCKED)
			r.Problem.Holder = rest.holder(name)
			return r
		}
		rest.nextToken++
		rest.waiters = append(rest.waiters, modelWaiter{name, o.Owner, rest.nextToken, o.TtlMs, w.clock + o.WaitMs})
		return lockResult(&trivetpb.LockHolder{Token: rest.nextToken, Owner: o.Owner, TtlMs: o.TtlMs}, true)
	case *trivetpb.Command_LockKeepAlive:
		name := string(c.LockKeepAlive.Name)
		h, held := rest.locks[name]
		if !held || h.token != c.LockKeepAlive.Token {
			return fail(trivetpb.Code_GUARD_FAILED)
		}
		rest.leases[h.lease].deadline = w.clock + rest.leases[h.lease].ttl
		return lockResult(rest.holder(name), false)
	case *trivetpb.Command_LockRelease:
		h, held := rest.locks[string(c.LockRelease.Name)]
		if !held || h.token != c.LockRelease.Token {
			return fail(trivetpb.Code_GUARD_FAILED)
		}
		w.endLease(h.lease)
		return lockResult(nil, false)
	case *trivetpb.Command_LockCancel:
		name, o := string(c.LockCancel.Name), c.LockCancel
		for i, m := range rest.waiters {
			if m.lock == name && m.token == o.Token {
				rest.waiters = slices.Delete(rest.waiters, i, i+1)
				return lockResult(nil, false)
			}
		}
		h, held := rest.locks[name]
		switch {
		case !held || h.token != o.Token:
			return fail(trivetpb.Code_GUARD_FAILED)
		case o.Release:
			w.endLease(h.lease)
			return lockResult(nil, false)
		}
		return lockResult(rest.holder(name), false)
	case *trivetpb.Command_SessionOpen:
		id, o := rest.draw(), c.SessionOpen
		rest.sessions[id] = &modelSession{ttl: o.TtlMs, deadline: w.clock + o.TtlMs, node: o.Node, answers: map[uint64]*trivetpb.Result{}}
		return sessionResult(id, o.TtlMs)
	case *trivetpb.Command_SessionKeepAlive:
		s := rest.sessions[c.SessionKeepAlive.Session]
		if s == nil {
			return fail(trivetpb.Code_SESSION_EXPIRED)
		}
		s.deadline = w.clock + s.ttl
		return sessionResult(c.SessionKeepAlive.Session, s.ttl)
	case *trivetpb.Command_SessionClose:
		s := rest.sessions[c.SessionClose.Session]
		if s == nil {
			return fail(trivetpb.Code_SESSION_EXPIRED)
		}
		delete(rest.sessions, c.SessionClose.Session)
		return sessionResult(c.SessionClose.Session, s.ttl)
	case *trivetpb.Command_RestoreChunk:
		return w.chunk(c.RestoreChunk)
	case *trivetpb.Command_RestoreAbort:
		if rest.upload != nil && rest.upload.id == c.RestoreAbort.Upload {
			rest.upload = nil
		}
		return &trivetpb.Result{}
	}
	panic("unknown command")
}

func (w *modelWork) chunk(c *trivetpb.RestoreChunk) *trivetpb.Result {
	u := w.rest.upload
	if c.Offset == 0 && u != nil && u.id != c.Upload && w.clock < u.deadline {
		return fail(trivetpb.Code_OVERLOADED)
	}
	if c.Offset == 0 && (u == nil || u.id != c.Upload) {
		u = &modelUpload{id: c.Upload}
		w.rest.upload = u
	}
	if u == nil || u.id != c.Upload {
		return fail(trivetpb.Code_BAD_REQUEST)
	}
	end := c.Offset + uint64(len(c.Data))
	switch {
	case end <= uint64(len(u.data)) && u.data[c.Offset:end] == string(c.Data):
	case c.Offset == uint64(len(u.data)):
		u.data += string(c.Data)
	default:
		return fail(trivetpb.Code_BAD_REQUEST)
	}
	u.deadline = w.clock + 60_000
	return &trivetpb.Result{}
}

// command is the whole way of a command: what was applied before is answered as
// then.
func (m *model) command(c *trivetpb.Command) *trivetpb.Result {
	r, replayed, remember := m.recall(c)
	if replayed {
		return r
	}
	if r == nil {
		r = m.guards(c)
		if r == nil {
			r = m.execute(c)
		}
	}
	r.Revision = m.revision
	if code := r.Problem.GetCode(); remember && code != trivetpb.Code_OVERLOADED && code != trivetpb.Code_QUOTA_EXCEEDED {
		if c.Session == 0 {
			m.rest.keys[string(c.IdempotencyKey)] = &modelKey{string(c.Fingerprint), m.clock + 600_000, r}
		} else if s := m.rest.sessions[c.Session]; s != nil {
			s.answers[c.Seq] = r
		}
	}
	return r
}

func (m *model) guards(c *trivetpb.Command) *trivetpb.Result {
	for _, g := range c.Guards {
		if h, held := m.rest.locks[string(g.Lock)]; !held || h.token != g.Token {
			return fail(trivetpb.Code_GUARD_FAILED)
		}
	}
	return nil
}

// recall returns the first answer, or a refusal, or says that the command is to
// be executed and its answer remembered.
func (m *model) recall(c *trivetpb.Command) (r *trivetpb.Result, replayed, remember bool) {
	again := func(first *trivetpb.Result) (*trivetpb.Result, bool, bool) {
		r := proto.Clone(first).(*trivetpb.Result)
		r.Replayed = true
		return r, true, false
	}
	unknown := func(code trivetpb.Code) (*trivetpb.Result, bool, bool) {
		r := fail(code)
		r.Problem.Unknown = true
		return r, false, false
	}
	switch {
	case len(c.IdempotencyKey) > 0:
		k := m.rest.keys[string(c.IdempotencyKey)]
		switch {
		case k == nil:
			return nil, false, true
		case k.fingerprint != string(c.Fingerprint):
			return fail(trivetpb.Code_IDEMPOTENCY_KEY_REUSED), false, false
		}
		return again(k.result)
	case c.Session == 0:
		return nil, false, false
	case c.Ack >= c.Seq:
		return fail(trivetpb.Code_BAD_REQUEST), false, false
	}
	s := m.rest.sessions[c.Session]
	if s == nil {
		return unknown(trivetpb.Code_SESSION_EXPIRED)
	}
	s.deadline = m.clock + s.ttl
	if c.Seq <= s.ack {
		return unknown(trivetpb.Code_BAD_REQUEST)
	}
	s.ack = max(s.ack, c.Ack)
	maps.DeleteFunc(s.answers, func(seq uint64, _ *trivetpb.Result) bool { return seq <= s.ack })
	if first := s.answers[c.Seq]; first != nil {
		return again(first)
	}
	if c.Seq-s.ack > 65_536 {
		return fail(trivetpb.Code_BAD_REQUEST), false, false
	}
	return nil, false, true
}

// modelDue is something that ends, and its place in the order.
type modelDue struct {
	deadline uint64
	kind     int
	id       uint64
	key      string
}

func (m *model) dues() (all []modelDue) {
	for id, l := range m.rest.leases {
		all = append(all, modelDue{l.deadline, 1, id, ""})
	}
	for _, w := range m.rest.waiters {
		all = append(all, modelDue{w.deadline, 2, w.token, ""})
	}
	for id, s := range m.rest.sessions {
		all = append(all, modelDue{s.deadline, 3, id, ""})
	}
	for key, k := range m.rest.keys {
		all = append(all, modelDue{k.deadline, 4, 0, key})
	}
	if u := m.rest.upload; u != nil {
		all = append(all, modelDue{u.deadline, 5, 0, ""})
	}
	slices.SortFunc(all, func(a, b modelDue) int {
		return cmp.Or(cmp.Compare(a.deadline, b.deadline), cmp.Compare(a.kind, b.kind), cmp.Compare(a.id, b.id), cmp.Compare(a.key, b.key))
	})
	return all
}

// expire: there are never enough things in a model for the bounds on one
// command to matter (TestExpireIsBounded).
func (m *model) expire() {
	for {
		all := m.dues()
		if len(all) == 0 || all[0].deadline > m.clock {
			return
		}
		switch d := all[0]; d.kind {
		case 1:
			work := &modelWork{state: maps.Clone(m.present()), revision: m.revision, clock: m.clock, rest: m.rest}
			if work.endLease(d.id); work.changed {
				m.commit(work.state)
				m.expired[m.revision] = true
			}
		case 2:
			m.rest.waiters = slices.DeleteFunc(m.rest.waiters, func(w modelWaiter) bool { return w.token == d.id })
		case 3:
			delete(m.rest.sessions, d.id)
		case 4:
			delete(m.rest.keys, d.key)
		case 5:
			m.rest.upload = nil
		}
	}
}

// nextDeadline is what NextDeadline has to return, MaxUint64 for nothing.
func (m *model) nextDeadline() uint64 {
	next := uint64(math.MaxUint64)
	if all := m.dues(); len(all) > 0 {
		next = all[0].deadline
	}
	if m.compact < m.revision {
		at, step := m.madeMS[m.compact+1]+m.settings.HistoryMS, max(1, m.settings.HistoryMS/32)
		quotient, rest := bits.Div64(0, at, step)
		if rest > 0 {
			quotient++
		}
		next = min(next, quotient*step)
	}
	return next
}

func (m *model) backup() *modelBackup {
	return &modelBackup{maps.Clone(m.present()), m.revision, m.rest.clone()}
}

func (m *model) restoreCommit(c *trivetpb.RestoreCommit) *trivetpb.Result {
	u := m.rest.upload
	if u == nil || u.id != c.Upload {
		return fail(trivetpb.Code_BAD_REQUEST)
	}
	m.rest.upload = nil
	b := m.backups[u.data]
	if b == nil || c.Size != uint64(len(u.data)) {
		return fail(trivetpb.Code_BAD_REQUEST)
	}
	state, rest := maps.Clone(b.state), newModelRest()
	rest.seed = m.rest.seed
	rest.nextID, rest.nextToken = max(m.rest.nextID, b.rest.nextID), max(m.rest.nextToken, b.rest.nextToken)
	for id, l := range b.rest.leases {
		if l.lock != "" {
			for _, key := range leased(state, id) {
				delete(state, key)
			}
			continue
		}
		rest.leases[id] = &modelLease{ttl: l.ttl, deadline: m.clock + l.ttl, own: l.own}
	}
	for key, k := range b.rest.keys {
		rest.keys[key] = &modelKey{k.fingerprint, m.clock + 600_000, k.result}
	}
	if q := m.settings.QuotaBytes; q > 0 && bytesOf(state) > q {
		return fail(trivetpb.Code_QUOTA_EXCEEDED)
	}
	m.rest = rest
	m.revision = max(m.revision, b.revision)
	m.commit(state)
	m.compact = m.revision
	return &trivetpb.Result{}
}
