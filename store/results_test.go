package store

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// Results that were taken back are those of the next entries: what a session or an
// idempotency key remembers must not be among them.
func TestReuseTakesNothingThatIsRemembered(t *testing.T) {
	put := func(key, value string) *trivetpb.Op {
		return &trivetpb.Op{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{Key: []byte(key), Value: []byte(value), Prev: true}}}
	}
	plainPut := func(key string) *trivetpb.Op {
		return &trivetpb.Op{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{Key: []byte(key)}}}
	}
	add := func(key string) *trivetpb.Op {
		return &trivetpb.Op{Op: &trivetpb.Op_Add{Add: &trivetpb.AddOp{Key: []byte(key), Delta: 3}}}
	}
	del := func(key string) *trivetpb.Op {
		return &trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{Key: []byte(key), Prev: true}}}
	}
	get := func(key string) *trivetpb.Op {
		return &trivetpb.Op{Op: &trivetpb.Op_Get{Get: &trivetpb.GetOp{Key: []byte(key)}}}
	}
	ops := func() []*trivetpb.Command {
		txn := func(ops ...*trivetpb.Op) *trivetpb.Command {
			return &trivetpb.Command{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: &trivetpb.TxnOp{Then: ops}}}}}
		}
		one := func(op *trivetpb.Op) *trivetpb.Command {
			return &trivetpb.Command{Command: &trivetpb.Command_Op{Op: op}}
		}
		return []*trivetpb.Command{
			one(put("a", "1")), one(put("a", "2")), one(add("n")), one(add("a" /* no number */)), one(del("a")), one(get("n")),
			one(plainPut("b")), txn(plainPut("c"), plainPut("d")), txn(put("b", "3"), put("c", "4")),
			txn(put("x", "1"), put("y", "1"), put("z", "1")), txn(add("n"), del("c"), get("b")), txn(add("b"), plainPut("c")),
		}
	}
	for _, kind := range []string{"node", "client", "key"} {
		t.Run(kind, func(t *testing.T) {
			s := New()
			index := uint64(0)
			apply := func(commands ...*trivetpb.Command) []*trivetpb.Result {
				index++
				results, err := s.Apply(index, &trivetpb.Entry{ClockMs: 1, Commands: commands})
				require.NoError(t, err)
				return results
			}
			var id uint64
			if kind != "key" {
				id = apply(openSession(60_000, kind == "node"))[0].GetSession().Session
			}
			identified := func() []*trivetpb.Command {
				list := ops()
				for i, c := range list {
					if kind == "key" {
						c.IdempotencyKey, c.Fingerprint = []byte{'k', byte(i)}, make([]byte, FingerprintBytes)
					} else {
						c.Session, c.Seq = id, uint64(i+1)
					}
				}
				return list
			}
			var first []*trivetpb.Result
			for _, r := range apply(identified()...) {
				first = append(first, proto.Clone(r).(*trivetpb.Result))
			}
			for range 3 {
				s.Reuse()
				apply(ops()...) // others, in the same memory
			}
			s.Reuse()
			again := apply(identified()...)
			for i, r := range again {
				require.True(t, r.Replayed)
				r.Replayed = false
				require.True(t, proto.Equal(first[i], r), "command %d: %v\nthe first time: %v", i, r, first[i])
				r.Replayed = true
			}
		})
	}
}

// What is taken back is empty, however much an entry takes.
func TestReusedResultsAreEmpty(t *testing.T) {
	s := New()
	for i, n := range []int{1, 3, 200, 5000, 7, 200} {
		e := benchEntry(n, 10, 8)
		txns := benchEntry(2*n, 1_000_000, 8)
		for c := range n {
			e.Commands = append(e.Commands, txnCommand(txns.Commands[2*c].GetOp(), txns.Commands[2*c+1].GetOp()))
			e.Commands = append(e.Commands, &trivetpb.Command{Command: &trivetpb.Command_LeaseKeepAlive{LeaseKeepAlive: &trivetpb.LeaseKeepAlive{Lease: 7}}})
		}
		results, err := s.Apply(uint64(i+1), e)
		require.NoError(t, err)
		require.Len(t, results, 3*n)
		for c, r := range results {
			if c < n {
				require.Positive(t, r.GetPut().GetVersion())
				require.Nil(t, r.Problem)
			} else if (c-n)%2 == 1 {
				require.Nil(t, r.Result)
				require.Equal(t, trivetpb.Code_LEASE_NOT_FOUND, r.Problem.Code)
			} else if r.Problem == nil { // the two keys may be the same
				require.False(t, r.GetTxn().Succeeded)
				require.Empty(t, r.GetTxn().Results)
			}
			require.False(t, r.Replayed)
		}
		s.Reuse()
		require.LessOrEqual(t, max(len(s.memory.of.of), len(s.memory.puts.of), len(s.memory.txns.of)), slabKept)
		for i := range s.memory.of.of {
			require.True(t, proto.Equal(&s.memory.of.of[i], &trivetpb.Result{}))
		}
	}
}

// Behind anything but an Apply there is nothing to take back: the results of the one
// before are their caller's.
func TestReuseBehindAnAdvance(t *testing.T) {
	s := New()
	results, err := s.Apply(1, benchEntry(3, 10, 8))
	require.NoError(t, err)
	s.Advance(2)
	s.Reuse()
	_, err = s.Apply(3, benchEntry(3, 10, 8))
	require.NoError(t, err)
	for i, r := range results {
		require.EqualValues(t, i+2, r.Revision)
	}
}
