package store

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// model is the state machine as its rules read, with no thought of cost: a full
// copy of the state for every revision, and commands that work on a copy. What
// is beside the items is in modelRest (model_rest_test.go).
type model struct {
	index, revision, compact, clock uint64
	settings                        Settings
	states                          map[uint64]map[string]Item
	madeMS                          map[uint64]uint64
	expired                         map[uint64]bool // revisions that ended a lease
	rest                            *modelRest
	// backups is what the snapshot files hold that were written, by their bytes.
	backups map[string]*modelBackup
}

func newModel() *model {
	return &model{
		revision: 1, compact: 1,
		settings: Settings{HistoryMS: 300_000, HistoryRevisions: 100_000},
		states:   map[uint64]map[string]Item{1: {}},
		madeMS:   map[uint64]uint64{1: 0},
		expired:  map[uint64]bool{},
		rest:     newModelRest(),
		backups:  map[string]*modelBackup{},
	}
}

func (m *model) present() map[string]Item { return m.states[m.revision] }

func (m *model) commit(state map[string]Item) {
	m.revision++
	m.states[m.revision], m.madeMS[m.revision] = state, m.clock
}

func bytesOf(state map[string]Item) (n uint64) {
	for k, i := range state {
		n += uint64(len(k)+len(i.Value)) + ItemOverheadBytes
	}
	return n
}

func (m *model) apply(index uint64, e *trivetpb.Entry) []*trivetpb.Result {
	m.index, m.clock = index, max(m.clock, e.ClockMs)
	var results []*trivetpb.Result
	for _, c := range e.Commands {
		results = append(results, m.command(c))
	}
	if m.revision > m.settings.HistoryRevisions {
		m.compact = max(m.compact, m.revision-m.settings.HistoryRevisions)
	}
	for r := m.revision; r > m.compact; r-- {
		if m.madeMS[r]+m.settings.HistoryMS <= m.clock {
			m.compact = max(m.compact, r)
			break
		}
	}
	return results
}

// execute does what a command says: all of it or, with a problem, nothing.
func (m *model) execute(c *trivetpb.Command) *trivetpb.Result {
	switch {
	case c.GetExpire() != nil:
		m.expire()
		return &trivetpb.Result{}
	case c.GetRestoreCommit() != nil:
		return m.restoreCommit(c.GetRestoreCommit())
	case c.GetMarker() != nil:
		m.marker(c.GetMarker())
		return &trivetpb.Result{}
	}
	work := &modelWork{state: maps.Clone(m.present()), revision: m.revision, clock: m.clock, rest: m.rest.clone()}
	var r *trivetpb.Result
	if c.GetOp() != nil {
		r = work.do(c.GetOp())
	} else {
		r = work.plain(c)
	}
	after, before := bytesOf(work.state), bytesOf(m.present())
	if q := m.settings.QuotaBytes; r.Problem == nil && q > 0 && after > q && after > before {
		r = fail(trivetpb.Code_QUOTA_EXCEEDED)
	}
	if r.Problem != nil {
		return r
	}
	work.endOrphans()
	m.rest = work.rest
	if work.changed {
		m.commit(work.state)
	}
	return r
}

func (m *model) marker(c *trivetpb.Marker) {
	if m.rest.seed == 0 {
		m.rest.seed = c.Seed
	}
	if s := c.Settings; s != nil {
		m.settings = Settings{HistoryMS: s.HistoryMs, HistoryRevisions: s.HistoryRevisions, QuotaBytes: s.QuotaBytes}
	}
}

// modelWork is a command at work on a copy.
type modelWork struct {
	state    map[string]Item
	revision uint64 // before the command
	changed  bool
	clock    uint64
	rest     *modelRest
}

func (w *modelWork) put(key string, value []byte, lease uint64) {
	old, ok := w.state[key]
	item := Item{Key: key, Value: value, CreateRevision: w.revision + 1, ModRevision: w.revision + 1, Version: 1, Lease: lease}
	if ok {
		item.CreateRevision, item.Version = old.CreateRevision, old.Version+1
	}
	w.state[key], w.changed = item, true
}

func (w *modelWork) keys(r *trivetpb.KeyRange) (found []string) {
	for k := range w.state {
		if k >= string(r.Start) && (len(r.End) == 0 || k < string(r.End)) {
			found = append(found, k)
		}
	}
	slices.Sort(found)
	return found
}

func fail(code trivetpb.Code) *trivetpb.Result {
	return &trivetpb.Result{Problem: &trivetpb.Problem{Code: code}}
}

func (w *modelWork) precondition(p *trivetpb.Precondition, key string) *trivetpb.Result {
	mod := w.state[key].ModRevision
	ok := true
	switch p.GetKind() {
	case trivetpb.Precondition_MOD_REVISION:
		ok = mod == p.ModRevision
	case trivetpb.Precondition_EXISTS:
		ok = mod != 0
	case trivetpb.Precondition_ABSENT:
		ok = mod == 0
	}
	if ok {
		return nil
	}
	r := fail(trivetpb.Code_PRECONDITION_FAILED)
	r.Problem.ModRevision = mod
	return r
}

func (w *modelWork) do(op *trivetpb.Op) *trivetpb.Result {
	r := w.simple(op)
	r.Revision = w.revision
	if w.changed {
		r.Revision++
	}
	return r
}

func (w *modelWork) simple(op *trivetpb.Op) *trivetpb.Result {
	switch op := op.Op.(type) {
	case *trivetpb.Op_Put:
		key := string(op.Put.Key)
		if op.Put.Lease != 0 && op.Put.TtlMs != 0 {
			return fail(trivetpb.Code_BAD_REQUEST)
		}
		if key == "" {
			return fail(trivetpb.Code_BAD_KEY)
		}
		if r := w.precondition(op.Put.Precondition, key); r != nil {
			return r
		}
		lease := op.Put.Lease
		if lease != 0 && w.rest.leases[lease] == nil {
			return fail(trivetpb.Code_LEASE_NOT_FOUND)
		}
		if op.Put.TtlMs != 0 {
			lease = w.grant(op.Put.TtlMs, true, "")
		}
		answer := &trivetpb.PutResult{}
		if old, ok := w.state[key]; ok && op.Put.Prev {
			answer.Prev = old.Proto()
		}
		w.put(key, op.Put.Value, lease)
		answer.Version, answer.Created = w.state[key].Version, w.state[key].Version == 1
		return &trivetpb.Result{Result: &trivetpb.Result_Put{Put: answer}}
	case *trivetpb.Op_Delete:
		keys := []string{string(op.Delete.Key)}
		if op.Delete.Range != nil {
			keys = w.keys(op.Delete.Range)
		} else if r := w.precondition(op.Delete.Precondition, keys[0]); r != nil {
			return r
		}
		answer := &trivetpb.DeleteResult{}
		for _, key := range keys {
			old, ok := w.state[key]
			if !ok {
				continue
			}
			answer.Deleted++
			if op.Delete.Prev {
				answer.Prev = append(answer.Prev, old.Proto())
			}
			delete(w.state, key)
			w.changed = true
		}
		return &trivetpb.Result{Result: &trivetpb.Result_Delete{Delete: answer}}
	case *trivetpb.Op_Get:
		answer := &trivetpb.GetResult{}
		if item, ok := w.state[string(op.Get.Key)]; ok {
			answer.Item = item.Proto()
		}
		return &trivetpb.Result{Result: &trivetpb.Result_Get{Get: answer}}
	case *trivetpb.Op_Range:
		keys := w.keys(op.Range.Range)
		answer := &trivetpb.RangeResult{Count: uint64(len(keys))}
		limit := int(op.Range.Limit)
		if limit == 0 {
			limit = 1000
		}
		if !op.Range.CountOnly {
			answer.More = len(keys) > limit
			for _, k := range keys[:min(len(keys), limit)] {
				item := w.state[k].Proto()
				if op.Range.KeysOnly {
					item.Value = nil
				}
				answer.Items = append(answer.Items, item)
			}
		}
		return &trivetpb.Result{Result: &trivetpb.Result_Range{Range: answer}}
	case *trivetpb.Op_Add:
		key := string(op.Add.Key)
		var n int64
		if old, ok := w.state[key]; ok {
			var err error
			n, err = strconv.ParseInt(string(old.Value), 10, 64)
			if err != nil || strconv.FormatInt(n, 10) != string(old.Value) {
				return fail(trivetpb.Code_NOT_A_NUMBER)
			}
		}
		if d := op.Add.Delta; (d > 0 && n > math.MaxInt64-d) || (d < 0 && n < math.MinInt64-d) {
			return fail(trivetpb.Code_OVERFLOW)
		}
		w.put(key, []byte(strconv.FormatInt(n+op.Add.Delta, 10)), w.state[key].Lease)
		return &trivetpb.Result{Result: &trivetpb.Result_Add{Add: &trivetpb.AddResult{Value: n + op.Add.Delta}}}
	case *trivetpb.Op_Txn:
		return w.txn(op.Txn)
	}
	panic("unknown op")
}

func (w *modelWork) txn(t *trivetpb.TxnOp) *trivetpb.Result {
	for _, ops := range [][]*trivetpb.Op{t.Then, t.Else} {
		for i, a := range ops {
			if a.GetTxn() != nil {
				return fail(trivetpb.Code_BAD_REQUEST)
			}
			for j, b := range ops {
				if i != j && clash(a, b) {
					return fail(trivetpb.Code_DUPLICATE_KEY)
				}
			}
		}
	}
	succeeded := true
	for _, c := range t.If {
		keys := []string{string(c.Key)}
		if c.Range != nil {
			keys = w.keys(c.Range)
		}
		for _, k := range keys {
			item, ok := w.state[k]
			succeeded = succeeded && modelCompare(c, item, ok)
		}
	}
	ops := t.Else
	if succeeded {
		ops = t.Then
	}
	answer := &trivetpb.TxnResult{Succeeded: succeeded}
	for i, op := range ops {
		r := w.do(op)
		if r.Problem != nil {
			r.Problem.Detail = fmt.Sprintf("%s[%d]: ", map[bool]string{true: "then", false: "else"}[succeeded], i)
			return r
		}
		answer.Results = append(answer.Results, r)
	}
	return &trivetpb.Result{Result: &trivetpb.Result_Txn{Txn: answer}}
}

// clash: a puts or adds to a key that b puts, adds to or deletes.
func clash(a, b *trivetpb.Op) bool {
	key := a.GetPut().GetKey()
	if a.GetAdd() != nil {
		key = a.GetAdd().Key
	}
	if key == nil {
		return false
	}
	if d := b.GetDelete(); d != nil {
		if d.Range != nil {
			return bytes.Compare(key, d.Range.Start) >= 0 && (len(d.Range.End) == 0 || bytes.Compare(key, d.Range.End) < 0)
		}
		return bytes.Equal(key, d.Key)
	}
	return bytes.Equal(key, b.GetPut().GetKey()) || bytes.Equal(key, b.GetAdd().GetKey())
}

func modelCompare(c *trivetpb.Compare, item Item, ok bool) bool {
	var order int
	switch c.Target {
	case trivetpb.Compare_VALUE:
		if !ok {
			return c.Relation == trivetpb.Compare_NOT_EQUAL
		}
		order = strings.Compare(string(item.Value), string(c.Value))
	default:
		n := map[trivetpb.Compare_Target]uint64{
			trivetpb.Compare_VERSION:         item.Version,
			trivetpb.Compare_CREATE_REVISION: item.CreateRevision,
			trivetpb.Compare_MOD_REVISION:    item.ModRevision,
			trivetpb.Compare_LEASE:           item.Lease,
		}[c.Target]
		switch {
		case n < c.Number:
			order = -1
		case n > c.Number:
			order = 1
		}
	}
	return map[trivetpb.Compare_Relation]bool{
		trivetpb.Compare_EQUAL:            order == 0,
		trivetpb.Compare_NOT_EQUAL:        order != 0,
		trivetpb.Compare_LESS:             order < 0,
		trivetpb.Compare_LESS_OR_EQUAL:    order <= 0,
		trivetpb.Compare_GREATER:          order > 0,
		trivetpb.Compare_GREATER_OR_EQUAL: order >= 0,
	}[c.Relation]
}

// requireResult compares all but the wording of problems.
func requireResult(t require.TestingT, want, got *trivetpb.Result, what any) {
	got = proto.Clone(got).(*trivetpb.Result)
	if want.Problem != nil && got.Problem != nil {
		if p := want.Problem.Detail; p != "" {
			require.True(t, strings.HasPrefix(got.Problem.Detail, p), "%q for %v", got.Problem.Detail, what)
		}
		got.Problem.Detail = want.Problem.Detail
	}
	require.True(t, proto.Equal(want, got), "want %v\ngot  %v\nfor  %v", want, got, what)
}
