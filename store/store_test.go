package store

import (
	"go/parser"
	"go/token"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// Short forms for the tests.

func putOp(key, value string) *trivetpb.Op {
	return &trivetpb.Op{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{Key: []byte(key), Value: []byte(value)}}}
}

func addOp(key string, delta int64) *trivetpb.Op {
	return &trivetpb.Op{Op: &trivetpb.Op_Add{Add: &trivetpb.AddOp{Key: []byte(key), Delta: delta}}}
}

func deleteOp(key string) *trivetpb.Op {
	return &trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{Key: []byte(key)}}}
}

func deleteRangeOp(start, end string) *trivetpb.Op {
	return &trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{
		Range: &trivetpb.KeyRange{Start: []byte(start), End: []byte(end)}}}}
}

func getOp(key string) *trivetpb.Op {
	return &trivetpb.Op{Op: &trivetpb.Op_Get{Get: &trivetpb.GetOp{Key: []byte(key)}}}
}

func rangeOp(start, end string) *trivetpb.Op {
	return &trivetpb.Op{Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{
		Range: &trivetpb.KeyRange{Start: []byte(start), End: []byte(end)}}}}
}

func txnOp(then ...*trivetpb.Op) *trivetpb.Op {
	return &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: &trivetpb.TxnOp{Then: then}}}
}

func entryOf(clockMS uint64, ops ...*trivetpb.Op) *trivetpb.Entry {
	e := &trivetpb.Entry{ClockMs: clockMS}
	for _, op := range ops {
		e.Commands = append(e.Commands, &trivetpb.Command{Command: &trivetpb.Command_Op{Op: op}})
	}
	return e
}

func settingsEntry(s *trivetpb.Settings) *trivetpb.Entry {
	return &trivetpb.Entry{Commands: []*trivetpb.Command{{Command: &trivetpb.Command_Marker{Marker: &trivetpb.Marker{Settings: s}}}}}
}

// apply applies an entry at the next index.
func apply(t testing.TB, s *Store, e *trivetpb.Entry) []*trivetpb.Result {
	t.Helper()
	results, err := s.Apply(s.Index()+1, e)
	require.NoError(t, err)
	return results
}

// do applies ops as one entry at the clock as it is, and returns the last result.
func do(t testing.TB, s *Store, ops ...*trivetpb.Op) *trivetpb.Result {
	t.Helper()
	results := apply(t, s, entryOf(0, ops...))
	return results[len(results)-1]
}

func view(t testing.TB, s *Store, revision uint64) *View {
	t.Helper()
	v, err := s.View(revision)
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

func contents(v *View) map[string]string {
	m := map[string]string{}
	for i := range v.Range(nil, RangeOptions{}) {
		m[i.Key] = string(i.Value)
	}
	return m
}

func TestOpsThatFailWithoutEffect(t *testing.T) {
	large := strings.Repeat("x", 3<<20)
	prepare := []*trivetpb.Op{
		putOp("text", "abc"), putOp("padded", "007"), putOp("max", "9223372036854775807"), putOp("min", "-9223372036854775808"),
		putOp("large/1", large), putOp("large/2", large), putOp("large/3", large),
	}
	withPrev := func(op *trivetpb.Op) *trivetpb.Op { op.GetDelete().Prev = true; return op }
	lease := putOp("a", "1")
	lease.GetPut().Lease = 3
	absent := putOp("text", "1")
	absent.GetPut().Precondition = &trivetpb.Precondition{Kind: trivetpb.Precondition_ABSENT}
	deletes7 := deleteOp("none")
	deletes7.GetDelete().Precondition = &trivetpb.Precondition{Kind: trivetpb.Precondition_MOD_REVISION, ModRevision: 7}
	for name, c := range map[string]struct {
		op   *trivetpb.Op
		want *trivetpb.Problem
	}{
		"add to a text":             {addOp("text", 1), &trivetpb.Problem{Code: trivetpb.Code_NOT_A_NUMBER}},
		"add to a padded number":    {addOp("padded", 1), &trivetpb.Problem{Code: trivetpb.Code_NOT_A_NUMBER}},
		"add past the greatest":     {addOp("max", 1), &trivetpb.Problem{Code: trivetpb.Code_OVERFLOW}},
		"add past the least":        {addOp("min", math.MinInt64), &trivetpb.Problem{Code: trivetpb.Code_OVERFLOW}},
		"a lease":                   {lease, &trivetpb.Problem{Code: trivetpb.Code_LEASE_NOT_FOUND}},
		"must be absent":            {absent, &trivetpb.Problem{Code: trivetpb.Code_PRECONDITION_FAILED, ModRevision: 2}},
		"must have mod_revision":    {deletes7, &trivetpb.Problem{Code: trivetpb.Code_PRECONDITION_FAILED}},
		"an empty key":              {putOp("", "1"), &trivetpb.Problem{Code: trivetpb.Code_BAD_KEY}},
		"a txn in a txn":            {txnOp(putOp("a", "1"), txnOp()), &trivetpb.Problem{Code: trivetpb.Code_BAD_REQUEST, Detail: "then[1]: "}},
		"a txn that writes twice":   {txnOp(putOp("a", "1"), addOp("a", 1)), &trivetpb.Problem{Code: trivetpb.Code_DUPLICATE_KEY, Detail: "then[1]: "}},
		"a txn's last op":           {txnOp(putOp("a", "1"), deleteOp("max"), addOp("text", 1)), &trivetpb.Problem{Code: trivetpb.Code_NOT_A_NUMBER, Detail: "then[2]: "}},
		"a range too large to send": {rangeOp("large/", "large0"), &trivetpb.Problem{Code: trivetpb.Code_TOO_LARGE, Limit: MaxResultBytes}},
		"prev too large to send":    {withPrev(deleteRangeOp("", "")), &trivetpb.Problem{Code: trivetpb.Code_TOO_LARGE, Limit: MaxResultBytes}},
		"a txn's answer too large": {txnOp(putOp("a", "1"), getOp("large/1"), getOp("large/2"), getOp("large/3")),
			&trivetpb.Problem{Code: trivetpb.Code_TOO_LARGE, Limit: MaxResultBytes, Detail: "then[3]: "}},
	} {
		t.Run(name, func(t *testing.T) {
			s := New()
			apply(t, s, entryOf(0, prepare...))
			before := s.Stats()
			got := do(t, s, c.op)
			requireResult(t, &trivetpb.Result{Revision: before.Revision, Problem: c.want}, got, name)
			after := s.Stats()
			after.Index = before.Index
			require.Equal(t, before, after)
			requireSound(t, s, true)
		})
	}
}

func TestSmallestAnswers(t *testing.T) {
	s := New()
	require.EqualValues(t, 1, s.Revision())
	// Deleting nothing makes no revision; neither does reading, nor a marker.
	r := do(t, s, deleteOp("a"))
	require.Nil(t, r.Problem)
	require.EqualValues(t, 0, r.GetDelete().Deleted)
	require.EqualValues(t, 1, r.Revision)
	require.EqualValues(t, 1, do(t, s, getOp("a")).Revision)
	apply(t, s, settingsEntry(nil))
	require.EqualValues(t, 1, s.Revision())
	// A missing key counts from 0.
	require.EqualValues(t, -3, do(t, s, addOp("n", -3)).GetAdd().Value)
	// An entry without commands moves the clock.
	require.Empty(t, apply(t, s, entryOf(77)))
	require.EqualValues(t, 77, s.Stats().ClockMS)
	apply(t, s, entryOf(5))
	require.EqualValues(t, 77, s.Stats().ClockMS)
}

func TestAQuotaLetsDeletesAndShrinkingThrough(t *testing.T) {
	s := New()
	do(t, s, putOp("a", strings.Repeat("x", 100)), putOp("b", strings.Repeat("x", 100)))
	apply(t, s, settingsEntry(&trivetpb.Settings{QuotaBytes: 300})) // there is more already
	require.EqualValues(t, DefaultHistoryMS, s.Stats().Settings.HistoryMS, "0 is the default")
	before := s.Stats()
	require.Equal(t, trivetpb.Code_QUOTA_EXCEEDED, do(t, s, putOp("c", "")).Problem.GetCode())
	require.Equal(t, trivetpb.Code_QUOTA_EXCEEDED, do(t, s, putOp("a", strings.Repeat("y", 101))).Problem.GetCode())
	require.Equal(t, trivetpb.Code_QUOTA_EXCEEDED, do(t, s, txnOp(putOp("c", ""), putOp("d", ""), deleteOp("b"))).Problem.GetCode())
	require.Equal(t, before.Hash, s.Stats().Hash)
	require.Nil(t, do(t, s, putOp("a", strings.Repeat("y", 100))).Problem, "it does not grow")
	require.Nil(t, do(t, s, txnOp(putOp("c", ""), deleteOp("b"))).Problem, "it shrinks as a whole")
	require.Nil(t, do(t, s, deleteOp("a")).Problem)
	require.Nil(t, do(t, s, putOp("d", "")).Problem)
	requireSound(t, s, true)
}

// unknownField is a field of number 99, as a newer version might add it.
var unknownField = protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)

func withUnknown[M proto.Message](m M) M {
	m.ProtoReflect().SetUnknown(unknownField)
	return m
}

func TestWhatIsUnknownIsNotApplied(t *testing.T) {
	op := func(op *trivetpb.Op) *trivetpb.Entry { return entryOf(9, putOp("a", "2"), op) }
	pre := func(kind trivetpb.Precondition_Kind) *trivetpb.Op {
		o := putOp("b", "1")
		o.GetPut().Precondition = &trivetpb.Precondition{Kind: kind}
		return o
	}
	compare := func(c *trivetpb.Compare) *trivetpb.Op {
		o := txnOp()
		o.GetTxn().If = []*trivetpb.Compare{c}
		return o
	}
	futureOp := withUnknown(putOp("b", "1"))
	futurePut := putOp("b", "1")
	withUnknown(futurePut.GetPut())
	futureRange := rangeOp("", "")
	withUnknown(futureRange.GetRange().Range)
	futurePre := pre(0)
	withUnknown(futurePre.GetPut().Precondition)
	ops := map[string]*trivetpb.Op{
		"an empty op":                   {},
		"a missing op":                  nil,
		"a missing put":                 {Op: &trivetpb.Op_Put{}},
		"a missing txn":                 {Op: &trivetpb.Op_Txn{}},
		"an empty op in a txn":          txnOp(&trivetpb.Op{}),
		"a missing op in a txn":         txnOp(nil),
		"a precondition's kind":         pre(9),
		"a negative kind":               pre(-1),
		"a compare's target":            compare(&trivetpb.Compare{Key: []byte("a"), Target: 9}),
		"a compare's relation":          compare(&trivetpb.Compare{Key: []byte("a"), Relation: -1}),
		"a missing compare":             compare(nil),
		"a field of an op":              futureOp,
		"a field of a put":              futurePut,
		"a field of a put in a txn":     txnOp(futurePut),
		"a field of a range":            futureRange,
		"a field of a precondition":     futurePre,
		"a field of a compare":          compare(withUnknown(&trivetpb.Compare{Key: []byte("a")})),
		"a field of a txn in the batch": {Op: &trivetpb.Op_Txn{Txn: withUnknown(&trivetpb.TxnOp{})}},
	}
	entries := map[string]*trivetpb.Entry{
		"a missing entry":         nil,
		"a missing command":       {Commands: []*trivetpb.Command{nil}},
		"an empty command":        {Commands: []*trivetpb.Command{{}}},
		"a missing marker":        {Commands: []*trivetpb.Command{{Command: &trivetpb.Command_Marker{}}}},
		"a field of the entry":    withUnknown(&trivetpb.Entry{}),
		"a field of a command":    {Commands: []*trivetpb.Command{withUnknown(&trivetpb.Command{})}},
		"a field of a marker":     {Commands: []*trivetpb.Command{{Command: &trivetpb.Command_Marker{Marker: withUnknown(&trivetpb.Marker{})}}}},
		"a field of the settings": settingsEntry(withUnknown(&trivetpb.Settings{})),
	}
	for name, o := range ops {
		entries[name] = op(o)
		require.Equal(t, trivetpb.Code_BAD_REQUEST, Check(o, Limits{}).GetCode(), name)
	}
	for name, e := range entries {
		t.Run(name, func(t *testing.T) {
			s := New()
			do(t, s, putOp("a", "1"))
			before := s.Stats()
			results, err := s.Apply(s.Index()+1, e)
			require.ErrorIs(t, err, ErrUnknownCommand)
			require.Nil(t, results)
			require.Equal(t, before, s.Stats())
		})
	}
}

func TestIndexesOnlyGrow(t *testing.T) {
	s := New()
	_, err := s.Apply(0, &trivetpb.Entry{})
	require.ErrorIs(t, err, ErrIndex)
	_, err = s.Apply(7, &trivetpb.Entry{})
	require.NoError(t, err)
	_, err = s.Apply(7, entryOf(0, putOp("a", "1")))
	require.ErrorIs(t, err, ErrIndex)
	s.Advance(6)
	require.EqualValues(t, 7, s.Index())
	s.Advance(8)
	require.EqualValues(t, 8, s.Index())
	require.EqualValues(t, 8, s.Stats().Index)
	require.EqualValues(t, 1, s.Revision())
}

func TestACallersAppendDoesNotReachTheStore(t *testing.T) {
	s := New()
	do(t, s, putOp("a", "1"))
	item, _, _ := s.Get([]byte("a"))
	_ = append(item.Value, 'x')
	require.Equal(t, len(item.Value), cap(item.Value))
	empty := New()
	do(t, empty, putOp("a", ""))
	item, ok, _ := empty.Get([]byte("a"))
	require.True(t, ok)
	require.NotNil(t, item.Value)
}

// TestReadersWhileApplying is for the race detector: point reads, Views of old
// revisions, snapshots and counts beside a writer that compacts all the time.
func TestReadersWhileApplying(t *testing.T) {
	s := New()
	apply(t, s, settingsEntry(&trivetpb.Settings{HistoryRevisions: 20}))
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				revision := s.Revision()
				item, ok, at := s.Get([]byte("pair/a"))
				if at < revision || (ok && item.ModRevision > at) {
					t.Errorf("read revision %d of %d after %d", item.ModRevision, at, revision)
				}
				v, err := s.View(max(revision, 5) - 4)
				if err != nil { // compacted or not there yet
					continue
				}
				a, okA := v.Get([]byte("pair/a"))
				b, okB := v.Get([]byte("pair/b"))
				if okA != okB || string(a.Value) != string(b.Value) {
					t.Errorf("half a txn at revision %d: %q and %q", v.Revision(), a.Value, b.Value)
				}
				if n := v.Count(nil); n != uint64(len(contents(v))) {
					t.Errorf("count %d of %d", n, len(contents(v)))
				}
				if err := v.writeRecords(discard{}); err != nil {
					t.Error(err)
				}
				v.Close()
			}
		})
	}
	for i := range 2_000 {
		n := string(rune('a' + i%26))
		switch i % 4 {
		case 3:
			apply(t, s, entryOf(uint64(i), txnOp(deleteOp("pair/a"), deleteOp("pair/b")), deleteRangeOp("k", "l")))
		default:
			apply(t, s, entryOf(uint64(i), txnOp(putOp("pair/a", n), putOp("pair/b", n)), putOp("k"+n, n)))
		}
	}
	close(done)
	readers.Wait()
	requireSound(t, s, false)
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// TestThePackageIsPure keeps rule 1 of doc.go.
func TestThePackageIsPure(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, i := range f.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			for _, bad := range []string{"net", "os", "time", "math/rand", "crypto/rand", "maps", "github.com/hashicorp", "trivet/raftnode", "trivet/httpapi"} {
				require.False(t, path == bad || strings.HasPrefix(path, bad+"/"), "%s imports %s", name, path)
			}
		}
		source, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NotContains(t, string(source), "map[", "%s: the order of a Go map must not reach the state; use a slice or a tree", name)
	}
}
