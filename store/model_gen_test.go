package store

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"pgregory.net/rapid"

	"trivet/trivetpb"
)

// Generators. Few keys, so that commands meet.

var (
	genKey   = rapid.SampledFrom([]string{"a", "a\x00", "ab", "b", "c", "c\xff", "\xff", "\xff\xff"})
	genValue = rapid.SampledFrom([]string{"", "x", "value", "7", "-3", "007", "9223372036854775807", "-9223372036854775808"})
)

func genRange(t *rapid.T) *trivetpb.KeyRange {
	if rapid.Bool().Draw(t, "prefix") {
		return PrefixRange([]byte(rapid.SampledFrom([]string{"", "a", "c", "\xff"}).Draw(t, "p")))
	}
	return &trivetpb.KeyRange{Start: []byte(genKey.Draw(t, "start")), End: []byte(genKey.Draw(t, "end"))}
}

func genPrecondition(t *rapid.T, revision uint64) *trivetpb.Precondition {
	kind := rapid.SampledFrom([]trivetpb.Precondition_Kind{0, 0, 0, 1, 2, 3}).Draw(t, "precondition")
	return &trivetpb.Precondition{Kind: kind, ModRevision: uint64(rapid.IntRange(0, int(revision)).Draw(t, "mod"))}
}

func genOp(t *rapid.T, m *model, inTxn bool) *trivetpb.Op {
	revision := m.revision
	kinds := []string{"put", "put", "put", "delete", "deleterange", "get", "range", "add", "add"}
	if !inTxn {
		kinds = append(kinds, "txn", "txn", "txn")
	}
	key := []byte(genKey.Draw(t, "key"))
	switch rapid.SampledFrom(kinds).Draw(t, "op") {
	case "put":
		put := &trivetpb.PutOp{}
		switch rapid.IntRange(0, 7).Draw(t, "attach") {
		case 0, 1, 2:
			put.Lease = genLease(t, m)
		case 3, 4:
			put.TtlMs = genTTL.Draw(t, "ttl")
		}
		return &trivetpb.Op{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{
			Key: key, Value: []byte(genValue.Draw(t, "value")), Lease: put.Lease, TtlMs: put.TtlMs,
			Prev: rapid.Bool().Draw(t, "prev"), Precondition: genPrecondition(t, revision)}}}
	case "delete":
		return &trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{
			Key: key, Prev: rapid.Bool().Draw(t, "prev"), Precondition: genPrecondition(t, revision)}}}
	case "deleterange":
		return &trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{
			Range: genRange(t), Prev: rapid.Bool().Draw(t, "prev")}}}
	case "get":
		return &trivetpb.Op{Op: &trivetpb.Op_Get{Get: &trivetpb.GetOp{Key: key}}}
	case "range":
		return genRangeOp(t)
	case "add":
		return &trivetpb.Op{Op: &trivetpb.Op_Add{Add: &trivetpb.AddOp{
			Key: key, Delta: rapid.SampledFrom([]int64{0, 1, -1, 5, math.MaxInt64, math.MinInt64}).Draw(t, "delta")}}}
	}
	txn := &trivetpb.TxnOp{}
	for range rapid.IntRange(0, 2).Draw(t, "ifs") {
		c := &trivetpb.Compare{
			Target:   trivetpb.Compare_Target(rapid.IntRange(0, 4).Draw(t, "target")),
			Relation: trivetpb.Compare_Relation(rapid.IntRange(0, 5).Draw(t, "relation")),
			Number:   uint64(rapid.IntRange(0, int(revision)).Draw(t, "number")),
			Value:    []byte(genValue.Draw(t, "value")),
		}
		if rapid.Bool().Draw(t, "range") {
			c.Range = genRange(t)
		} else {
			c.Key = key
		}
		txn.If = append(txn.If, c)
	}
	for range rapid.IntRange(0, 4).Draw(t, "thens") {
		txn.Then = append(txn.Then, genOp(t, m, true))
	}
	for range rapid.IntRange(0, 2).Draw(t, "elses") {
		txn.Else = append(txn.Else, genOp(t, m, true))
	}
	return &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: txn}}
}

func genRangeOp(t *rapid.T) *trivetpb.Op {
	return &trivetpb.Op{Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{
		Range: genRange(t), Limit: uint32(rapid.IntRange(0, 4).Draw(t, "limit")),
		KeysOnly: rapid.Bool().Draw(t, "keys"), CountOnly: rapid.IntRange(0, 3).Draw(t, "count") == 0}}}
}

func genEntry(t *rapid.T, m *model) *trivetpb.Entry {
	e := &trivetpb.Entry{}
	// Now and then a leader whose clock is behind; now and then much later.
	step := rapid.IntRange(-50, 400).Draw(t, "clock")
	if rapid.IntRange(0, 9).Draw(t, "later") == 0 {
		step = rapid.SampledFrom([]int{1000, 3000, 60_000, 600_000}).Draw(t, "much")
	}
	if step > 0 || uint64(-step) < m.clock {
		e.ClockMs = uint64(int(m.clock) + step)
	}
	for range rapid.IntRange(0, 4).Draw(t, "commands") {
		e.Commands = append(e.Commands, genCommand(t, m))
	}
	return e
}

var (
	genTTL  = rapid.SampledFrom([]uint64{1000, 1001, 2500, 100_000})
	genLock = rapid.SampledFrom([]string{"lock", "lock2"})
)

// sorted is a map's keys: what is drawn must not depend on the map's order.
func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func genLease(t *rapid.T, m *model) uint64 {
	return rapid.SampledFrom(append(sorted(m.rest.leases), 9)).Draw(t, "lease")
}

func genSession(t *rapid.T, m *model) uint64 {
	return rapid.SampledFrom(append(sorted(m.rest.sessions), 9)).Draw(t, "session")
}

// genToken is most likely one that holds or waits.
func genToken(t *rapid.T, m *model) uint64 {
	tokens := []uint64{m.rest.nextToken + 1, 0}
	for _, name := range sorted(m.rest.locks) {
		tokens = append(tokens, m.rest.locks[name].token)
	}
	for _, w := range m.rest.waiters {
		tokens = append(tokens, w.token)
	}
	return rapid.SampledFrom(tokens).Draw(t, "token")
}

func genCommand(t *rapid.T, m *model) *trivetpb.Command {
	c := genPlain(t, m)
	if c == nil {
		c = opCommand(genOp(t, m, false))
	}
	if checkGuards(guarded(&trivetpb.Command{Command: c.Command}, "lock", 1)) == nil && rapid.IntRange(0, 3).Draw(t, "guarded") == 0 {
		guarded(c, genLock.Draw(t, "lock"), genToken(t, m))
	}
	switch rapid.IntRange(0, 5).Draw(t, "identity") {
	case 0, 1:
		id := genSession(t, m)
		var ack, last uint64
		if s := m.rest.sessions[id]; s != nil {
			ack, last = s.ack, s.ack
			for seq := range s.answers {
				last = max(last, seq)
			}
		}
		seq := last + rapid.SampledFrom([]uint64{1, 1, 1, 2, 20, 70_000}).Draw(t, "seq")
		if last > 0 && rapid.Bool().Draw(t, "repeat") {
			seq = uint64(rapid.IntRange(int(max(ack, 1)), int(last)).Draw(t, "again"))
		}
		in(c, id, seq, uint64(rapid.IntRange(int(min(ack, seq)), int(seq)).Draw(t, "ack")))
		if rapid.Bool().Draw(t, "behind") {
			c.Ack = min(ack, seq-1)
		}
	case 2:
		under(c, rapid.SampledFrom([]string{"k1", "k2", "k3"}).Draw(t, "key"), rapid.SampledFrom([]string{"A", "A", "B"}).Draw(t, "request"))
	}
	return c
}

// genPlain is a command that is no operation on keys, or nil.
func genPlain(t *rapid.T, m *model) *trivetpb.Command {
	switch rapid.IntRange(0, 40).Draw(t, "command") {
	case 0:
		c := seedMarker(rapid.SampledFrom([]uint64{0, 5, 7}).Draw(t, "seed"))
		if rapid.Bool().Draw(t, "settings") {
			c.GetMarker().Settings = &trivetpb.Settings{
				HistoryMs:        uint64(rapid.SampledFrom([]int{1, 300, 2000, 1e9}).Draw(t, "ms")),
				HistoryRevisions: uint64(rapid.SampledFrom([]int{1, 3, 10, 1e9}).Draw(t, "revisions")),
				QuotaBytes:       uint64(rapid.SampledFrom([]int{0, 0, 0, 400, 700}).Draw(t, "quota")),
			}
		}
		return c
	case 1, 2:
		return grant(genTTL.Draw(t, "ttl"))
	case 3:
		return keepAlive(genLease(t, m))
	case 4:
		return revoke(genLease(t, m))
	case 5, 6, 7, 8:
		wait := rapid.SampledFrom([]uint64{0, 300, 1000, 5000}).Draw(t, "wait")
		return acquire(genLock.Draw(t, "lock"), rapid.SampledFrom([]string{"", "me"}).Draw(t, "owner"), genTTL.Draw(t, "ttl"), wait)
	case 9:
		return keepLock(genLock.Draw(t, "lock"), genToken(t, m))
	case 10, 11:
		return release(genLock.Draw(t, "lock"), genToken(t, m))
	case 12, 13:
		return cancel(genLock.Draw(t, "lock"), genToken(t, m), rapid.Bool().Draw(t, "release"))
	case 14, 15:
		return openSession(genTTL.Draw(t, "ttl"), rapid.Bool().Draw(t, "node"))
	case 16:
		return keepSession(genSession(t, m))
	case 17:
		return closeSession(genSession(t, m))
	case 18, 19, 20, 21:
		return expire()
	case 22:
		offset := rapid.SampledFrom([]uint64{0, 0, 3, 6}).Draw(t, "offset")
		return restoreChunk(uint64(rapid.IntRange(1, 2).Draw(t, "upload")), offset, []byte(rapid.SampledFrom([]string{"abc", "xyz"}).Draw(t, "data")))
	case 23:
		return restoreCommit(uint64(rapid.IntRange(1, 2).Draw(t, "upload")), uint64(rapid.IntRange(0, 6).Draw(t, "size")))
	case 24:
		return restoreAbort(uint64(rapid.IntRange(1, 2).Draw(t, "upload")))
	}
	return nil
}
