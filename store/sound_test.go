package store

import (
	"github.com/stretchr/testify/require"
	"github.com/tidwall/btree"
)

// requireRestSound checks, between entries, that all that is derived from
// leases, locks, sessions and answers is what it is derived from.
func requireRestSound(t require.TestingT, st *state) {
	keys := map[uint64][]string{}
	st.tree.scan(func(c *chain) bool {
		if id := leaseOf(c.newest()); id != 0 {
			keys[id] = append(keys[id], c.key())
		}
		return true
	})
	var rest uint64
	dues := map[*due]uint64{}
	locks := 0
	st.leases.m.Scan(func(id uint64, l lease) bool {
		require.Equal(t, len(keys[id]), l.run.keys.Len(), "lease %d", id)
		if len(keys[id]) > 0 {
			require.Equal(t, keys[id], l.run.keys.Keys(), "lease %d", id)
		}
		delete(keys, id)
		require.False(t, l.own && l.run.keys.Len() == 0, "lease %d of a single put has no key", id)
		if l.lock != "" {
			locks++
			held, ok := st.locks.get(l.lock)
			require.True(t, ok && held.lease == id, "lease %d and the lock %q", id, l.lock)
		}
		rest += l.hash(id)
		dues[&l.run.due] = l.deadlineMS
		return true
	})
	require.Empty(t, keys, "keys of leases that are not there")
	require.Equal(t, st.locks.len(), locks)
	queued := 0
	st.locks.m.Scan(func(name string, l lock) bool {
		rest += l.hash(name)
		if l.queue != nil {
			l.queue.Scan(func(token uint64, _ struct{}) bool {
				w, ok := st.waiters.get(token)
				require.True(t, ok && w.lock == name, "token %d waits for %q", token, name)
				require.Greater(t, token, l.token)
				queued++
				return true
			})
		}
		return true
	})
	require.Equal(t, st.waiters.len(), queued)
	st.waiters.m.Scan(func(token uint64, w waiter) bool {
		rest += w.hash(token)
		dues[w.due] = w.deadlineMS
		return true
	})
	var count, bytes, client, ofKeys uint64
	nodes := 0
	st.sessions.m.Scan(func(id uint64, s *session) bool {
		require.Equal(t, s.hashNow(), s.hash)
		require.False(t, s.closed)
		rest += s.hash
		dues[s.due] = s.deadlineMS
		own := answers{}
		for i, p := range s.pages {
			require.True(t, i == 0 || s.pages[i-1].number < p.number)
			used := 0
			for n, a := range p.of {
				r := p.answer(uint64(n))
				if r == nil {
					continue
				}
				seq := p.number*pageAnswers + uint64(n)
				require.Greater(t, seq, s.ack)
				require.Equal(t, answerBytes(r), a.bytes)
				used++
				own.bytes += a.bytes
				own.sum += answerHash(id, seq, a.bytes)
			}
			require.Positive(t, used)
			require.Equal(t, used, p.used)
			own.count += uint32(used)
		}
		require.Equal(t, []uint64{uint64(own.count), own.bytes, own.sum}, []uint64{uint64(s.count), s.bytes, s.sum})
		count, bytes, rest = count+uint64(own.count), bytes+own.bytes, rest+own.sum
		if s.node {
			nodes++
		} else {
			client += own.bytes
		}
		return true
	})
	require.Equal(t, st.nodeSessions, nodes)
	st.keyed.m.Scan(func(order string, k *keyed) bool {
		require.Equal(t, keyedOrder(k.deadlineMS, k.key), order)
		same, _ := st.keys.Get(k.key)
		require.Same(t, k, same)
		require.Equal(t, keyedBytes(k.key, answerBytes(k.result)), k.bytes)
		count, bytes, ofKeys, rest = count+1, bytes+k.bytes, ofKeys+k.bytes, rest+k.hash()
		return true
	})
	require.Equal(t, st.keys.Len(), st.keyed.len())
	require.Equal(t, []uint64{count, bytes, client, ofKeys}, []uint64{st.answerCount, st.answerBytes, st.clientBytes, st.keyedBytes})
	require.Equal(t, rest, st.totals.rest)

	require.Len(t, st.dues.of, len(dues))
	for i, d := range st.dues.of {
		require.EqualValues(t, i, d.place)
		deadline, ok := dues[d]
		require.True(t, ok)
		require.Equal(t, deadline, d.deadlineMS)
		require.LessOrEqual(t, d.at, d.deadlineMS)
		require.False(t, i > 0 && d.before(st.dues.of[(i-1)/2]), "the heap's order")
	}
	if u := st.upload; u != nil {
		again := upload{id: u.id, deadlineMS: u.deadlineMS}
		for _, c := range u.chunks {
			require.Equal(t, again.size, c.offset)
			again.add(c.data)
		}
		require.Equal(t, u.hash(), again.hash())
	}
	requireFrozen(t, &st.leases.m, st.leases.frozen)
	requireFrozen(t, &st.locks.m, st.locks.frozen)
	requireFrozen(t, &st.waiters.m, st.waiters.frozen)
	requireFrozen(t, &st.sessions.m, st.sessions.frozen)
	requireFrozen(t, &st.keyed.m, st.keyed.frozen)
}

func requireFrozen[K interface{ ~uint64 | ~string }, V any](t require.TestingT, m, frozen *btree.Map[K, V]) {
	if frozen != nil {
		require.Equal(t, m.Keys(), frozen.Keys())
		require.Equal(t, m.Values(), frozen.Values())
	}
}

// recomputedRest is the hash of what is beside the items, from what a View holds.
func recomputedRest(v *View) uint64 {
	var sum uint64
	v.rest.leases.Scan(func(id uint64, l lease) bool { sum += l.hash(id); return true })
	v.rest.locks.Scan(func(name string, l lock) bool { sum += l.hash(name); return true })
	v.rest.waiters.Scan(func(token uint64, w waiter) bool { sum += w.hash(token); return true })
	v.rest.sessions.Scan(func(id uint64, s *session) bool {
		sum += s.hashNow()
		for _, p := range s.pages {
			for i := range uint64(pageAnswers) {
				if r := p.answer(i); r != nil {
					sum += answerHash(id, p.number*pageAnswers+i, answerBytes(r))
				}
			}
		}
		return true
	})
	v.rest.keyed.Scan(func(_ string, k *keyed) bool { sum += k.hash(); return true })
	if u := v.rest.upload; u != nil {
		sum += u.hash()
	}
	if v.rest.seed|v.rest.nextID|v.rest.nextToken != 0 {
		sum += mix(hashDraws, v.rest.seed, v.rest.nextID, v.rest.nextToken)
	}
	return sum
}
