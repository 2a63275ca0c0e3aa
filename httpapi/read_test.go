package httpapi

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/raftnode"
	"trivet/trivetpb"
)

// What a test waits for comes within microseconds; the bound is for machines
// that are busy.
const (
	waitAtMost = 10 * time.Second
	waitStep   = time.Millisecond
)

func TestFreshnessIsPassedOn(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	d.node.put(t, "a", "1")
	for query, want := range map[string]raftnode.ReadOptions{
		"":                         {},
		"consistency=linearizable": {},
		"consistency=linearizable&min_revision=2": {MinRevision: 2},
		"min_revision=2": {MinRevision: 2},
		"consistency=bounded&max_staleness=200ms":               {Consistency: raftnode.Bounded, MaxStaleness: 200 * time.Millisecond},
		"consistency=bounded&max_staleness=1.5s&min_revision=1": {Consistency: raftnode.Bounded, MaxStaleness: 1500 * time.Millisecond, MinRevision: 1},
		"consistency=session&min_revision=0":                    {Consistency: raftnode.Session},
		"consistency=session&min_revision=7&max_staleness=1h":   {Consistency: raftnode.Bounded, MinRevision: 7, MaxStaleness: time.Hour},
		"consistency=stale":                                     {Consistency: raftnode.Stale},
	} {
		for _, call := range everyRead {
			target := call.path + "?" + query
			if strings.Contains(call.path, "?") {
				target = call.path + "&" + query
			}
			r := d.do(call.method, strings.TrimRight(target, "?&"), call.body, call.headers...)
			require.Less(t, r.status, 405, r.body)
			require.NotEqual(t, 400, r.status, r.body)
			require.Equal(t, want, d.node.lastRead(), "%s %s", call.method, target)
			require.Equal(t, consistencies[want.Consistency], r.header.Get("Trivet-Consistency"))
		}
	}
}

func TestFreshnessThatIsRefused(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	for _, query := range []string{
		"consistency=", "consistency=strong", "consistency=Stale",
		"consistency=bounded", "consistency=bounded&max_staleness=0s", "consistency=bounded&max_staleness=200",
		"consistency=bounded&max_staleness=-1s", "max_staleness=1s", "consistency=linearizable&max_staleness=1s",
		"consistency=stale&max_staleness=1s", "consistency=stale&min_revision=1",
		"consistency=bounded&max_staleness=", "consistency=bounded&max_staleness=soon", "consistency=bounded&max_staleness=1ns&min_revision=x",
		"consistency=bounded&max_staleness=2562048h",
		"consistency=session", "consistency=session&min_revision=", "consistency=session&min_revision=-1", "consistency=session&min_revision=9007199254740992",
	} {
		for _, call := range everyRead {
			if call.method == "HEAD" || strings.Contains(call.path, "?") {
				continue
			}
			p := d.do(call.method, call.path+"?"+query, call.body, call.headers...).requireProblem(t, trivetpb.Code_BAD_REQUEST)
			require.Regexp(t, "consistency|max_staleness|min_revision", p.Detail, "it says what is wrong")
		}
	}
	require.Empty(t, d.node.asked)
	p := d.do("POST", "/v1/txn?consistency=stale", `{"then":[{"op":"put","key":"a","value":"1"}]}`).requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Contains(t, p.Detail, "only reads")
	require.EqualValues(t, 1, d.node.data.Revision())
}

// What is told of the state's age is so when the answer goes out, not when the
// proof was given.
func TestFreshnessIsShown(t *testing.T) {
	for name, row := range map[string]struct {
		proof       raftnode.Proof
		age         time.Duration // of AsOf
		consistency string
		staleness   string // at least, where it is a number that is not 0
	}{
		"linearizable":                   {raftnode.Proof{Consistency: raftnode.Linearizable, Proven: true}, time.Minute, "linearizable", "0"},
		"bounded":                        {raftnode.Proof{Consistency: raftnode.Bounded, Proven: true}, 1500 * time.Millisecond, "bounded", "1500"},
		"bounded, older by now":          {raftnode.Proof{Consistency: raftnode.Bounded, Staleness: time.Millisecond, Proven: true}, time.Second, "bounded", "1000"},
		"bounded, rounded up":            {raftnode.Proof{Consistency: raftnode.Bounded, Proven: true}, 0, "bounded", "1"},
		"asked bounded, served stronger": {raftnode.Proof{Consistency: raftnode.Linearizable}, 0, "linearizable", "0"},
		"stale with no proof":            {raftnode.Proof{Consistency: raftnode.Stale, Staleness: time.Second}, time.Second, "stale", "unknown"},
		"stale with a proof":             {raftnode.Proof{Consistency: raftnode.Stale, Proven: true}, time.Hour, "stale", "3600000"},
		"session with a proof":           {raftnode.Proof{Consistency: raftnode.Session, Proven: true}, time.Second, "session", "1000"},
		"session with no proof":          {raftnode.Proof{Consistency: raftnode.Session}, time.Second, "session", "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			node := newSoloNode()
			node.put(t, "a", "1")
			node.onRead = func(context.Context, raftnode.ReadOptions) (raftnode.Proof, error) {
				p := row.proof
				p.AsOf = time.Now().Add(-row.age)
				return p, nil
			}
			d := openDoor(t, node, Config{})
			for _, read := range everyRead {
				r := d.do(read.method, read.path, read.body, read.headers...)
				require.Equal(t, row.consistency, r.header.Get("Trivet-Consistency"), "%s %s", read.method, read.path)
				told := r.header.Get("Trivet-Staleness")
				if least, err := strconv.Atoi(row.staleness); err == nil && least > 0 {
					ms, err := strconv.Atoi(told)
					require.NoError(t, err, told)
					require.GreaterOrEqual(t, ms, least)
					require.Less(t, ms, least+int(waitAtMost.Milliseconds()))
				} else {
					require.Equal(t, row.staleness, told, "%s %s", read.method, read.path)
				}
			}
		})
	}
}

// everyRead is a call of each kind that reads, for a state that has the key a.
var everyRead = []struct {
	method, path, body string
	headers            []string
}{
	{"GET", "/v1/kv/a", "", nil},
	{"HEAD", "/v1/kv/a", "", nil},
	{"GET", "/v1/kv/a", "", []string{"Accept: application/json"}},
	{"GET", "/v1/kv/a", "", []string{`If-None-Match: "2"`}},
	{"GET", "/v1/kv/a?revision=2", "", nil},
	{"GET", "/v1/kv/missing", "", nil},
	{"GET", "/v1/kv", "", nil},
	{"HEAD", "/v1/kv", "", nil},
	{"GET", "/v1/kv?count_only=true", "", nil},
	{"GET", "/v1/kv?revision=2", "", nil},
	{"GET", "/v1/kv", "", []string{"Accept: application/x-ndjson"}},
	{"POST", "/v1/txn", `{"if":[{"key":"a","target":"version","op":"==","number":1}],"then":[{"op":"get","key":"a"}],"else":[{"op":"range","prefix":""}]}`, nil},
	{"POST", "/v1/batch", `{"ops":[{"op":"get","key":"a"},{"op":"get","key":"missing"}]}`, nil},
	{"POST", "/v1/batch", `{"ops":[{"op":"range","prefix":""},{"op":"txn","then":[{"op":"get","key":"a"}]}]}`, nil},
	{"POST", "/v1/batch", `{"ops":[{"op":"get","key":"a"},{"op":"delete","key":"none"}]}`, nil},
	{"GET", "/v1/leases", "", nil},
	{"GET", "/v1/leases/7", "", nil},
	{"GET", "/v1/locks/held", "", nil},
}

func TestTimeoutsReachTheNode(t *testing.T) {
	node := newSoloNode()
	var left time.Duration
	node.onRead = func(ctx context.Context, o raftnode.ReadOptions) (raftnode.Proof, error) {
		deadline, ok := ctx.Deadline()
		require.True(t, ok)
		left = time.Until(deadline)
		return raftnode.Proof{}, nil
	}
	d := openDoor(t, node, Config{})
	for query, want := range map[string]time.Duration{"": defaultTimeout, "?timeout=1m": time.Minute, "?timeout=30s": 30 * time.Second} {
		d.do("GET", "/v1/kv/a"+query, "")
		require.LessOrEqual(t, left, want)
		require.Greater(t, left, want-4*time.Second)
	}
}
