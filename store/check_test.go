package store

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

func TestCheck(t *testing.T) {
	key := strings.Repeat("k", MaxKeyBytes)
	limited := rangeOp("", "")
	limited.GetRange().Limit = MaxRangeItems + 1
	both := deleteRangeOp("a", "b")
	both.GetDelete().Key = []byte("a")
	conditional := deleteRangeOp("a", "b")
	conditional.GetDelete().Precondition = &trivetpb.Precondition{Kind: trivetpb.Precondition_EXISTS}
	compares := func(c *trivetpb.Compare) *trivetpb.Op {
		op := txnOp()
		op.GetTxn().If = []*trivetpb.Compare{c}
		return op
	}
	var many []*trivetpb.Op
	for range DefaultMaxTxnOps + 1 {
		many = append(many, getOp("a"))
	}
	elses := &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: &trivetpb.TxnOp{Else: []*trivetpb.Op{getOp("a"), getOp("")}}}}
	small := Limits{MaxValueBytes: 3, MaxTxnOps: 1}
	for name, c := range map[string]struct {
		op     *trivetpb.Op
		limits Limits
		code   trivetpb.Code
		detail string
	}{
		"the longest key":            {op: putOp(key, "")},
		"a longer key":               {op: putOp(key+"k", ""), code: trivetpb.Code_BAD_KEY},
		"no key":                     {op: getOp(""), code: trivetpb.Code_BAD_KEY},
		"no key to add to":           {op: addOp("", 1), code: trivetpb.Code_BAD_KEY},
		"no key to delete":           {op: deleteOp(""), code: trivetpb.Code_BAD_KEY},
		"the longest value":          {op: putOp("a", strings.Repeat("v", DefaultMaxValueBytes))},
		"a longer value":             {op: putOp("a", strings.Repeat("v", DefaultMaxValueBytes+1)), code: trivetpb.Code_TOO_LARGE},
		"a value over the limit":     {op: putOp("a", "abcd"), limits: small, code: trivetpb.Code_TOO_LARGE},
		"no limit exceeds the hard":  {op: putOp("a", strings.Repeat("v", HardMaxValueBytes+1)), limits: Limits{MaxValueBytes: 1 << 40}, code: trivetpb.Code_TOO_LARGE},
		"everything":                 {op: rangeOp("", "")},
		"a range that holds nothing": {op: rangeOp("b", "a")},
		"a bound after the longest":  {op: rangeOp(key+"\x00", "")},
		"a longer bound":             {op: rangeOp("", key+"kk"), code: trivetpb.Code_BAD_KEY},
		"no range":                   {op: &trivetpb.Op{Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{}}}, code: trivetpb.Code_BAD_REQUEST},
		"too high a limit":           {op: limited, code: trivetpb.Code_BAD_REQUEST},
		"a key and a range":          {op: both, code: trivetpb.Code_BAD_REQUEST},
		"a precondition for a range": {op: conditional, code: trivetpb.Code_BAD_REQUEST},
		"a compare of nothing":       {op: compares(&trivetpb.Compare{}), code: trivetpb.Code_BAD_KEY, detail: "if[0]: "},
		"a compare of too much":      {op: compares(&trivetpb.Compare{Key: []byte("a"), Range: PrefixRange(nil)}), code: trivetpb.Code_BAD_REQUEST, detail: "if[0]: "},
		"too many ops":               {op: txnOp(many...), code: trivetpb.Code_TOO_LARGE},
		"as many ops as may be":      {op: txnOp(many[1:]...)},
		"more ops than the limit":    {op: txnOp(getOp("a"), getOp("b")), limits: small, code: trivetpb.Code_TOO_LARGE},
		"an op of a branch":          {op: elses, code: trivetpb.Code_BAD_KEY, detail: "else[1]: "},
		"a txn in a txn":             {op: txnOp(txnOp()), code: trivetpb.Code_BAD_REQUEST, detail: "then[0]: "},
		"two puts":                   {op: txnOp(putOp("a", ""), getOp("a"), putOp("a", "")), code: trivetpb.Code_DUPLICATE_KEY, detail: "then[2]: "},
		"a put and an add":           {op: txnOp(addOp("a", 1), putOp("a", "")), code: trivetpb.Code_DUPLICATE_KEY, detail: "then[1]: "},
		"a delete and a put":         {op: txnOp(deleteOp("a"), putOp("a", "")), code: trivetpb.Code_DUPLICATE_KEY, detail: "then[1]: "},
		"a put and a delete":         {op: txnOp(putOp("a", ""), deleteOp("a")), code: trivetpb.Code_DUPLICATE_KEY, detail: "then[0]: "},
		"a put and a range over it":  {op: txnOp(putOp("m", ""), deleteRangeOp("a", "")), code: trivetpb.Code_DUPLICATE_KEY, detail: "then[0]: "},
		"a range before a put in it": {op: txnOp(deleteRangeOp("a", "n"), putOp("m", "")), code: trivetpb.Code_DUPLICATE_KEY, detail: "then[1]: "},
		"a range up to the put":      {op: txnOp(deleteRangeOp("a", "m"), putOp("m", ""))},
		"a range after the put":      {op: txnOp(deleteRangeOp("m\x00", ""), putOp("m", ""))},
		"a range that starts at it":  {op: txnOp(deleteRangeOp("m", "m"), putOp("m", ""))},
		"two deletes of one key":     {op: txnOp(deleteOp("a"), deleteOp("a"), deleteRangeOp("", ""))},
		"one key in each branch":     {op: &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: &trivetpb.TxnOp{Then: []*trivetpb.Op{putOp("a", "")}, Else: []*trivetpb.Op{putOp("a", "")}}}}},
		"a duplicate in the branch not taken": {op: &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: &trivetpb.TxnOp{
			Else: []*trivetpb.Op{putOp("a", ""), deleteOp("a")}}}}, code: trivetpb.Code_DUPLICATE_KEY, detail: "else[0]: "},
	} {
		t.Run(name, func(t *testing.T) {
			p := Check(c.op, c.limits)
			require.Equal(t, c.code, p.GetCode(), "%v", p)
			require.True(t, strings.HasPrefix(p.GetDetail(), c.detail), "%q", p.GetDetail())
			if c.code == trivetpb.Code_TOO_LARGE {
				require.NotZero(t, p.Limit)
			}
			if c.limits == (Limits{}) && c.code != trivetpb.Code_TOO_LARGE {
				// Apply refuses the same, whoever proposed it.
				require.Equal(t, c.code, do(t, New(), c.op).Problem.GetCode())
			}
		})
	}
}

func TestReadOnly(t *testing.T) {
	elses := txnOp(getOp("a"))
	elses.GetTxn().Else = []*trivetpb.Op{deleteOp("a")}
	for _, op := range []*trivetpb.Op{getOp("a"), rangeOp("", ""), txnOp(), txnOp(getOp("a"), rangeOp("", ""))} {
		require.True(t, ReadOnly(op), "%v", op)
	}
	for _, op := range []*trivetpb.Op{nil, {}, putOp("a", ""), deleteOp("a"), addOp("a", 1), txnOp(putOp("a", "")), txnOp(txnOp()), txnOp(nil), elses} {
		require.False(t, ReadOnly(op), "%v", op)
	}
}

func TestPrefixRange(t *testing.T) {
	for prefix, end := range map[string]string{"": "", "a": "b", "a\xff": "b", "\xff\xff": "", "a/": "a0", "\x00": "\x01"} {
		r := PrefixRange([]byte(prefix))
		require.Equal(t, prefix, string(r.Start))
		require.Equal(t, end, string(r.End), "%q", prefix)
	}
}
