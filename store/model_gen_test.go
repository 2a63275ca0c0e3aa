package store

import (
	"math"

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

func genOp(t *rapid.T, revision uint64, inTxn bool) *trivetpb.Op {
	kinds := []string{"put", "put", "put", "delete", "deleterange", "get", "range", "add", "add"}
	if !inTxn {
		kinds = append(kinds, "txn", "txn", "txn")
	}
	key := []byte(genKey.Draw(t, "key"))
	switch rapid.SampledFrom(kinds).Draw(t, "op") {
	case "put":
		lease := rapid.SampledFrom([]uint64{0, 0, 0, 0, 0, 0, 0, 0, 0, 9}).Draw(t, "lease")
		return &trivetpb.Op{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{
			Key: key, Value: []byte(genValue.Draw(t, "value")), Lease: lease,
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
		txn.Then = append(txn.Then, genOp(t, revision, true))
	}
	for range rapid.IntRange(0, 2).Draw(t, "elses") {
		txn.Else = append(txn.Else, genOp(t, revision, true))
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
	// Now and then a leader whose clock is behind.
	if step := rapid.IntRange(-50, 400).Draw(t, "clock"); step > 0 || uint64(-step) < m.clock {
		e.ClockMs = uint64(int(m.clock) + step)
	}
	for range rapid.IntRange(0, 4).Draw(t, "commands") {
		if rapid.IntRange(0, 19).Draw(t, "marker") == 0 {
			var s *trivetpb.Settings
			if rapid.Bool().Draw(t, "settings") {
				s = &trivetpb.Settings{
					HistoryMs:        uint64(rapid.SampledFrom([]int{1, 300, 2000, 1e9}).Draw(t, "ms")),
					HistoryRevisions: uint64(rapid.SampledFrom([]int{1, 3, 10, 1e9}).Draw(t, "revisions")),
					QuotaBytes:       uint64(rapid.SampledFrom([]int{0, 0, 0, 400, 700}).Draw(t, "quota")),
				}
			}
			e.Commands = append(e.Commands, &trivetpb.Command{Command: &trivetpb.Command_Marker{Marker: &trivetpb.Marker{Term: 1, Settings: s}}})
			continue
		}
		e.Commands = append(e.Commands, &trivetpb.Command{Command: &trivetpb.Command_Op{Op: genOp(t, m.revision, false)}})
	}
	return e
}
