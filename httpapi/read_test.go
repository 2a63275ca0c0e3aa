package httpapi

import (
	"context"
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
		for _, call := range []struct{ method, path, body string }{
			{"GET", "/v1/kv/a?", ""},
			{"HEAD", "/v1/kv/a?", ""},
			{"GET", "/v1/kv?", ""},
			{"POST", "/v1/txn?", `{"then":[{"op":"get","key":"a"}]}`},
			{"POST", "/v1/batch?", `{"ops":[{"op":"get","key":"a"}]}`},
		} {
			r := d.do(call.method, call.path+query, call.body)
			require.Equal(t, 200, r.status, r.body)
			require.Equal(t, want, d.node.lastRead(), "%s %s%s", call.method, call.path, query)
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
		"consistency=session", "consistency=session&min_revision=-1", "consistency=session&min_revision=9007199254740992",
	} {
		d.do("GET", "/v1/kv/a?"+query, "").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	}
	require.Empty(t, d.node.asked)
	p := d.do("POST", "/v1/txn?consistency=stale", `{"then":[{"op":"put","key":"a","value":"1"}]}`).requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Contains(t, p.Detail, "only reads")
	require.EqualValues(t, 1, d.node.data.Revision())
}

func TestFreshnessIsShown(t *testing.T) {
	for name, row := range map[string]struct {
		proof                  raftnode.Proof
		consistency, staleness string
	}{
		"linearizable":                   {raftnode.Proof{Consistency: raftnode.Linearizable, Proven: true}, "linearizable", "0"},
		"bounded, rounded up":            {raftnode.Proof{Consistency: raftnode.Bounded, Staleness: 1500 * time.Microsecond, Proven: true}, "bounded", "2"},
		"bounded, fresh":                 {raftnode.Proof{Consistency: raftnode.Bounded, Proven: true}, "bounded", "0"},
		"asked bounded, served stronger": {raftnode.Proof{Consistency: raftnode.Linearizable}, "linearizable", "0"},
		"stale with no proof":            {raftnode.Proof{Consistency: raftnode.Stale, Staleness: time.Second}, "stale", "unknown"},
		"session with a proof":           {raftnode.Proof{Consistency: raftnode.Session, Staleness: time.Second, Proven: true}, "session", "1000"},
	} {
		t.Run(name, func(t *testing.T) {
			node := newSoloNode()
			node.onRead = func(context.Context, raftnode.ReadOptions) (raftnode.Proof, error) { return row.proof, nil }
			d := openDoor(t, node, Config{})
			for _, path := range []string{"/v1/kv/missing", "/v1/kv"} {
				r := d.do("GET", path, "")
				require.Equal(t, row.consistency, r.header.Get("Trivet-Consistency"))
				require.Equal(t, row.staleness, r.header.Get("Trivet-Staleness"))
			}
		})
	}
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
