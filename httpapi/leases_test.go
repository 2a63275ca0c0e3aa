package httpapi

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// The calls on leases, locks and sessions become these commands, and their
// results these answers; with an identity and, where there is something to
// guard, with guards.
func TestCallsBecomeCommands(t *testing.T) {
	node := newScribe(nil)
	d := openDoor(t, node.soloNode, Config{})
	for _, row := range []struct {
		method, path, body string
		want               *trivetpb.Command
		status             int
		answer             string
		guarded            bool
	}{
		{"POST", "/v1/leases", `{"ttl":"10s"}`,
			&trivetpb.Command{Command: &trivetpb.Command_LeaseGrant{LeaseGrant: &trivetpb.LeaseGrant{TtlMs: 10_000}}},
			201, `{"lease":77,"ttl":"10s"}`, true},
		{"PUT", "/v1/leases/77", "",
			&trivetpb.Command{Command: &trivetpb.Command_LeaseKeepAlive{LeaseKeepAlive: &trivetpb.LeaseKeepAlive{Lease: 77}}},
			200, `{"lease":77,"ttl":"10s","remaining":"10s"}`, true},
		{"DELETE", "/v1/leases/9007199254740991", "",
			&trivetpb.Command{Command: &trivetpb.Command_LeaseRevoke{LeaseRevoke: &trivetpb.LeaseRevoke{Lease: 9007199254740991}}},
			200, `{"deleted":3,"revision":2}`, true},
		{"POST", "/v1/locks/a%2Fb//%ff", `{"ttl":"1.5s","owner":"me"}`,
			&trivetpb.Command{Command: &trivetpb.Command_LockAcquire{LockAcquire: &trivetpb.LockAcquire{Name: []byte("a/b//\xff"), TtlMs: 1500, Owner: "me"}}},
			200, `{"name64":"YS9iLy//","token":9,"lease":77,"owner":"me","ttl":"1.5s"}`, true},
		{"POST", "/v1/locks/a", "",
			&trivetpb.Command{Command: &trivetpb.Command_LockAcquire{LockAcquire: &trivetpb.LockAcquire{Name: []byte("a"), TtlMs: 10_000}}},
			200, `{"name":"a","token":9,"lease":77,"owner":"","ttl":"10s"}`, true},
		{"POST", "/v1/locks/a", `{"wait":"1h","ttl":"24h"}`,
			&trivetpb.Command{Command: &trivetpb.Command_LockAcquire{LockAcquire: &trivetpb.LockAcquire{Name: []byte("a"), TtlMs: 86_400_000, WaitMs: 3_600_000}}},
			200, `{"name":"a","token":9,"lease":77,"owner":"","ttl":"24h0m0s"}`, true},
		{"PUT", "/v1/locks/a", `{"token":9}`,
			&trivetpb.Command{Command: &trivetpb.Command_LockKeepAlive{LockKeepAlive: &trivetpb.LockKeepAlive{Name: []byte("a"), Token: 9}}},
			200, `{"name":"a","token":9,"lease":77,"ttl":"10s","remaining":"10s"}`, true},
		{"DELETE", "/v1/locks/a?token=9", "",
			&trivetpb.Command{Command: &trivetpb.Command_LockRelease{LockRelease: &trivetpb.LockRelease{Name: []byte("a"), Token: 9}}},
			200, `{"released":true,"revision":2}`, true},
		{"POST", "/v1/sessions", `{"ttl":"90s"}`,
			&trivetpb.Command{Command: &trivetpb.Command_SessionOpen{SessionOpen: &trivetpb.SessionOpen{TtlMs: 90_000}}},
			201, `{"session":88,"ttl":"1m30s"}`, false},
		{"POST", "/v1/sessions", "",
			&trivetpb.Command{Command: &trivetpb.Command_SessionOpen{SessionOpen: &trivetpb.SessionOpen{TtlMs: 60_000}}},
			201, `{"session":88,"ttl":"1m0s"}`, false},
		{"PUT", "/v1/sessions/88", "",
			&trivetpb.Command{Command: &trivetpb.Command_SessionKeepAlive{SessionKeepAlive: &trivetpb.SessionKeepAlive{Session: 88}}},
			200, `{"session":88,"ttl":"1m0s"}`, false},
		{"DELETE", "/v1/sessions/88", "",
			&trivetpb.Command{Command: &trivetpb.Command_SessionClose{SessionClose: &trivetpb.SessionClose{Session: 88}}},
			200, `{"closed":true,"session":88}`, false},
	} {
		r := d.do(row.method, row.path, row.body)
		require.Equal(t, row.status, r.status, r.body)
		require.Equal(t, row.answer+"\n", r.body)
		require.Equal(t, row.want.String(), node.taken()[0].String())

		d.do(row.method, row.path, row.body, "Trivet-Session: 5;seq=3;ack=2")
		row.want.Session, row.want.Seq, row.want.Ack = 5, 3, 2
		require.Equal(t, row.want.String(), node.taken()[0].String())
		d.do(row.method, row.path, row.body, "Idempotency-Key: k")
		c := node.taken()[0]
		require.Equal(t, "k", string(c.IdempotencyKey))
		require.Len(t, c.Fingerprint, fingerprintBytes)

		r = d.do(row.method, row.path, row.body, "Trivet-Guard: l=7")
		if row.guarded {
			require.EqualValues(t, 7, node.taken()[0].Guards[0].Token)
		} else {
			require.Contains(t, r.requireProblem(t, trivetpb.Code_BAD_REQUEST).Detail, "Trivet-Guard")
			require.Empty(t, node.taken())
		}
	}
	// What its caller relies on cannot be had: the answer goes with the session.
	p := d.do("DELETE", "/v1/sessions/5", "", "Trivet-Session: 5;seq=1").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Contains(t, p.Detail, "of its own")
	require.Empty(t, node.taken())
}

func TestLeasesLocksAndSessionsThatAreRefused(t *testing.T) {
	node := newScribe(nil)
	d := openDoor(t, node.soloNode, Config{})
	long := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = 'x'
		}
		return string(b)
	}
	for _, row := range []struct {
		method, path, body string
		code               trivetpb.Code
		says               string
	}{
		{"POST", "/v1/leases", ``, trivetpb.Code_BAD_REQUEST, "field ttl is missing"},
		{"POST", "/v1/leases", `{}`, trivetpb.Code_BAD_REQUEST, "field ttl is missing"},
		{"POST", "/v1/leases", `{"ttl":"0s"}`, trivetpb.Code_BAD_REQUEST, "ttl: must be from 1s to 24h0m0s"},
		{"POST", "/v1/leases", `{"ttl":"999ms"}`, trivetpb.Code_BAD_REQUEST, "ttl: must be from 1s"},
		{"POST", "/v1/leases", `{"ttl":"25h"}`, trivetpb.Code_BAD_REQUEST, "ttl: must be from 1s"},
		{"POST", "/v1/leases", `{"ttl":"-10s"}`, trivetpb.Code_BAD_REQUEST, "ttl: must be from 1s"},
		{"POST", "/v1/leases", `{"ttl":"1e9s"}`, trivetpb.Code_BAD_REQUEST, "ttl: is no duration"},
		{"POST", "/v1/leases", `{"ttl":"10"}`, trivetpb.Code_BAD_REQUEST, "ttl: is no duration"},
		{"POST", "/v1/leases", `{"ttl":10}`, trivetpb.Code_BAD_REQUEST, "ttl: expected a string"},
		{"POST", "/v1/leases", `{"ttl":"10s","ttl":"10s"}`, trivetpb.Code_BAD_REQUEST, "more than once"},
		{"POST", "/v1/leases", `{"ttl":"10s","wait":"1s"}`, trivetpb.Code_BAD_REQUEST, "wait: this call has no such field"},
		{"POST", "/v1/leases", `{"ttl":"10s","key":"a"}`, trivetpb.Code_BAD_REQUEST, `unknown field "key"`},
		{"POST", "/v1/leases", `{"ttl":"10s"}x`, trivetpb.Code_BAD_REQUEST, "behind the document"},
		{"POST", "/v1/leases", `{"ttl":"` + long(smallDocumentBytes) + `"}`, trivetpb.Code_TOO_LARGE, "the most is 16384"},
		{"POST", "/v1/leases?ttl=10s", ``, trivetpb.Code_BAD_REQUEST, `unknown parameter "ttl"`},
		{"PUT", "/v1/leases/x", ``, trivetpb.Code_BAD_REQUEST, "id of a lease"},
		{"PUT", "/v1/leases/0", ``, trivetpb.Code_BAD_REQUEST, "id of a lease"},
		{"PUT", "/v1/leases/01", ``, trivetpb.Code_BAD_REQUEST, "id of a lease"},
		{"PUT", "/v1/leases/-1", ``, trivetpb.Code_BAD_REQUEST, "id of a lease"},
		{"PUT", "/v1/leases/+1", ``, trivetpb.Code_BAD_REQUEST, "id of a lease"},
		{"PUT", "/v1/leases/1.0", ``, trivetpb.Code_BAD_REQUEST, "id of a lease"},
		{"PUT", "/v1/leases/0x1", ``, trivetpb.Code_BAD_REQUEST, "id of a lease"},
		{"PUT", "/v1/leases/1%2F2", ``, trivetpb.Code_BAD_REQUEST, "id of a lease"},
		{"PUT", "/v1/leases/9007199254740992", ``, trivetpb.Code_BAD_REQUEST, "id of a lease"},
		{"PUT", "/v1/leases/77", `{"ttl":"20s"}`, trivetpb.Code_BAD_REQUEST, "takes no body"},
		{"GET", "/v1/leases/x", ``, trivetpb.Code_BAD_REQUEST, "id of a lease"},
		{"GET", "/v1/leases/77?limit=0", ``, trivetpb.Code_BAD_REQUEST, "limit must be"},
		{"GET", "/v1/leases?limit=10001", ``, trivetpb.Code_BAD_REQUEST, "limit must be"},
		{"GET", "/v1/leases?cursor=", ``, trivetpb.Code_BAD_REQUEST, "cursor"},
		{"GET", "/v1/leases?cursor=0", ``, trivetpb.Code_BAD_REQUEST, "cursor"},
		{"GET", "/v1/leases?revision=1", ``, trivetpb.Code_BAD_REQUEST, `unknown parameter "revision"`},
		{"GET", "/v1/leases/", ``, trivetpb.Code_NOT_FOUND, "no such path"},
		{"GET", "/v1/leases/77/keys", ``, trivetpb.Code_NOT_FOUND, "no such path"},
		{"POST", "/v1/leases/77", ``, trivetpb.Code_METHOD_NOT_ALLOWED, "DELETE, GET, HEAD, PUT"},
		{"GET", "/v1/leases/77", ``, trivetpb.Code_LEASE_NOT_FOUND, ""},

		{"POST", "/v1/locks/", ``, trivetpb.Code_BAD_REQUEST, "the name of the lock is empty"},
		{"POST", "/v1/locks", ``, trivetpb.Code_NOT_FOUND, "no such path"},
		{"GET", "/v1/locks/" + long(1025), ``, trivetpb.Code_BAD_REQUEST, "1025 bytes"},
		{"POST", "/v1/locks/a", `{"ttl":"0s"}`, trivetpb.Code_BAD_REQUEST, "ttl: must be from 1s"},
		{"POST", "/v1/locks/a", `{"wait":"1h1ms"}`, trivetpb.Code_BAD_REQUEST, "wait: must be from 0s to 1h0m0s"},
		{"POST", "/v1/locks/a", `{"wait":"-1s"}`, trivetpb.Code_BAD_REQUEST, "wait: must be from 0s"},
		{"POST", "/v1/locks/a", `{"wait":"1us"}`, trivetpb.Code_BAD_REQUEST, "wait: must be whole milliseconds"},
		{"POST", "/v1/locks/a", `{"owner":"` + long(1025) + `"}`, trivetpb.Code_BAD_REQUEST, "owner: has 1025 bytes"},
		{"POST", "/v1/locks/a", `{"owner":"` + "\xff" + `"}`, trivetpb.Code_BAD_REQUEST, "owner: the string is not valid UTF-8"},
		{"POST", "/v1/locks/a", `{"token":4}`, trivetpb.Code_BAD_REQUEST, "token: this call has no such field"},
		{"POST", "/v1/locks/a?wait=1s", ``, trivetpb.Code_BAD_REQUEST, `unknown parameter "wait"`},
		{"PUT", "/v1/locks/a", ``, trivetpb.Code_BAD_REQUEST, "field token is missing"},
		{"PUT", "/v1/locks/a", `{"token":0}`, trivetpb.Code_BAD_REQUEST, "token: must be a token"},
		{"PUT", "/v1/locks/a", `{"token":"4"}`, trivetpb.Code_BAD_REQUEST, "token: expected an integer"},
		{"PUT", "/v1/locks/a", `{"token":4,"ttl":"4s"}`, trivetpb.Code_BAD_REQUEST, "ttl: this call has no such field"},
		{"DELETE", "/v1/locks/a", ``, trivetpb.Code_BAD_REQUEST, "parameter token is missing"},
		{"DELETE", "/v1/locks/a?token=0", ``, trivetpb.Code_BAD_REQUEST, "token must be"},
		{"DELETE", "/v1/locks/a?token=x", ``, trivetpb.Code_BAD_REQUEST, "token must be"},
		{"DELETE", "/v1/locks/a?token=4", `{"token":4}`, trivetpb.Code_BAD_REQUEST, "takes no body"},

		{"POST", "/v1/sessions", `{"ttl":"25h"}`, trivetpb.Code_BAD_REQUEST, "ttl: must be from 1s"},
		{"POST", "/v1/sessions", `[]`, trivetpb.Code_BAD_REQUEST, "expected an object"},
		{"PUT", "/v1/sessions/x", ``, trivetpb.Code_BAD_REQUEST, "id of a session"},
		{"PUT", "/v1/sessions/5", `{}`, trivetpb.Code_BAD_REQUEST, "takes no body"},
		{"DELETE", "/v1/sessions/0", ``, trivetpb.Code_BAD_REQUEST, "id of a session"},
		{"GET", "/v1/sessions/5", ``, trivetpb.Code_METHOD_NOT_ALLOWED, "DELETE, PUT"},
	} {
		p := d.do(row.method, row.path, row.body).requireProblem(t, row.code)
		require.Contains(t, p.Detail, row.says, "%s %s %s", row.method, row.path, row.body)
		require.Equal(t, "not_applied", p.Outcome)
		require.Empty(t, node.taken())
	}
	for _, path := range []string{"/v1/leases", "/v1/leases/5", "/v1/locks/a", "/v1/locks/a?token=1", "/v1/sessions", "/v1/sessions/5"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "GET"} {
			r := d.do(method, path, `{"ttl":"10s"}`, "If-Match: *")
			require.GreaterOrEqual(t, r.status, 400, "%s %s", method, path)
			if method != "GET" {
				r = d.do(method, path, `{"ttl":"10s"}`, "Content-Type: text/plain")
				require.GreaterOrEqual(t, r.status, 400, "%s %s", method, path)
			}
		}
	}
	require.Empty(t, node.taken())
}

// A node that answers with something else is a failure of the node.
func TestResultsOfAnotherKind(t *testing.T) {
	node := newScribe(func(*trivetpb.Command) *trivetpb.Result { return &trivetpb.Result{Revision: 1} })
	d := openDoor(t, node.soloNode, Config{})
	for _, call := range []struct{ method, path, body string }{
		{"POST", "/v1/leases", `{"ttl":"10s"}`}, {"PUT", "/v1/leases/1", ""}, {"DELETE", "/v1/leases/1", ""},
		{"POST", "/v1/locks/a", ""}, {"PUT", "/v1/locks/a", `{"token":1}`}, {"DELETE", "/v1/locks/a?token=1", ""},
		{"POST", "/v1/sessions", ""}, {"PUT", "/v1/sessions/1", ""}, {"DELETE", "/v1/sessions/1", ""},
	} {
		p := d.do(call.method, call.path, call.body).requireProblem(t, trivetpb.Code_INTERNAL)
		require.Equal(t, "unknown", p.Outcome)
	}
}

type leaseJSON struct {
	Lease                        uint64
	TTL, Remaining, Lock, Lock64 string
	KeyCount                     uint64 `json:"key_count"`
	Keys, Keys64                 []string
	More                         bool
}

// grant makes a lease.
func (d *door) grant(ttl string) uint64 {
	d.t.Helper()
	r := d.do("POST", "/v1/leases", `{"ttl":"`+ttl+`"}`)
	require.Equal(d.t, 201, r.status, r.body)
	var l leaseJSON
	r.decode(d.t, &l)
	require.Positive(d.t, l.Lease)
	require.LessOrEqual(d.t, l.Lease, uint64(maxNumber))
	return l.Lease
}

// A lease holds its keys for as long as it is kept, and takes them with it.
func TestLeases(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	id := d.grant("10s")
	path := "/v1/leases/" + itoa(int(id))
	for _, key := range []string{"b", "a/1", "%ff", "c"} {
		require.Equal(t, 201, d.do("PUT", "/v1/kv/"+key+"?lease="+itoa(int(id)), "v").status)
	}
	require.Equal(t, itoa(int(id)), d.do("GET", "/v1/kv/b", "").header.Get("Trivet-Lease"))

	var l leaseJSON
	r := d.do("GET", path, "")
	r.decode(t, &l)
	require.Equal(t, leaseJSON{Lease: id, TTL: "10s", Remaining: "10s", KeyCount: 4, Keys: []string{"a/1", "b", "c"}, Keys64: []string{"/w=="}}, l)
	require.Equal(t, "linearizable", r.header.Get("Trivet-Consistency"))
	require.Equal(t, "5", r.header.Get("Trivet-Revision"))
	l = leaseJSON{}
	d.do("GET", path+"?limit=2&consistency=stale", "").decode(t, &l)
	require.Equal(t, []string{"a/1", "b"}, l.Keys)
	require.True(t, l.More)
	require.Equal(t, 200, d.do("HEAD", path, "").status)

	d.node.advance(t, 9*time.Second)
	l = leaseJSON{}
	d.do("GET", path, "").decode(t, &l)
	require.Equal(t, "1s", l.Remaining)
	require.Equal(t, `{"lease":`+itoa(int(id))+`,"ttl":"10s","remaining":"10s"}`+"\n", d.do("PUT", path, "").body)
	d.node.advance(t, 9500*time.Millisecond)
	l = leaseJSON{}
	d.do("GET", path, "").decode(t, &l)
	require.Equal(t, "500ms", l.Remaining)
	require.Equal(t, 200, d.do("GET", "/v1/kv/b", "").status)

	// What a write attaches elsewhere, or to nothing, is the lease's no more.
	require.Equal(t, 200, d.do("PUT", "/v1/kv/c", "v").status)
	d.node.advance(t, 500*time.Millisecond)
	d.do("GET", path, "").requireProblem(t, trivetpb.Code_LEASE_NOT_FOUND)
	d.do("PUT", path, "").requireProblem(t, trivetpb.Code_LEASE_NOT_FOUND)
	d.do("PUT", "/v1/kv/b?lease="+itoa(int(id)), "v").requireProblem(t, trivetpb.Code_LEASE_NOT_FOUND)
	require.Equal(t, 404, d.do("GET", "/v1/kv/b", "").status)
	require.Equal(t, 200, d.do("GET", "/v1/kv/c", "").status)

	id = d.grant("1s")
	d.do("POST", "/v1/batch", `{"ops":[{"op":"put","key":"x","value":"","lease":`+itoa(int(id))+`},{"op":"put","key":"y","value":"","lease":`+itoa(int(id))+`}]}`)
	revision := d.node.data.Revision()
	require.Equal(t, `{"deleted":2,"revision":`+itoa(int(revision)+1)+"}\n", d.do("DELETE", "/v1/leases/"+itoa(int(id)), "").body)
	require.Equal(t, 404, d.do("GET", "/v1/kv/x", "").status)
}

// A key with a ttl has a lease of its own, which ends with the next write that
// does not ask for one.
func TestTTLs(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	require.Equal(t, 201, d.do("PUT", "/v1/kv/a?ttl=2s", "1").status)
	lease := d.do("GET", "/v1/kv/a", "").header.Get("Trivet-Lease")
	require.NotEqual(t, "0", lease)
	require.Equal(t, 200, d.do("GET", "/v1/leases/"+lease, "").status)
	require.Equal(t, 200, d.do("PUT", "/v1/kv/a", "2").status)
	d.do("GET", "/v1/leases/"+lease, "").requireProblem(t, trivetpb.Code_LEASE_NOT_FOUND)
	d.node.advance(t, 3*time.Second)
	require.Equal(t, "2", d.do("GET", "/v1/kv/a", "").body)
	require.Equal(t, 200, d.do("POST", "/v1/txn", `{"then":[{"op":"put","key":"a","value":"3","ttl":"1s"}]}`).status)
	d.node.advance(t, time.Second)
	require.Equal(t, 404, d.do("GET", "/v1/kv/a", "").status)
}

// Pages of leases have each that lives through all of them once.
func TestListsOfLeases(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	require.Equal(t, `{"revision":1,"leases":[]}`+"\n", d.do("GET", "/v1/leases", "").body)
	want := map[uint64]bool{}
	for range 5 {
		want[d.grant("10s")] = true
	}
	var held struct {
		Name       string
		Token      uint64
		Lease      uint64
		Owner, TTL string
	}
	d.do("POST", "/v1/locks/some/lock", "").decode(t, &held)
	want[held.Lease] = true
	seen, cursor := map[uint64]bool{}, ""
	for pages := 0; ; pages++ {
		require.Less(t, pages, 10)
		var page struct {
			Revision uint64
			Leases   []leaseJSON
			Next     string
		}
		d.do("GET", "/v1/leases?limit=2"+cursor, "").decode(t, &page)
		for _, l := range page.Leases {
			require.False(t, seen[l.Lease])
			seen[l.Lease] = true
			require.Equal(t, l.Lease == held.Lease, l.Lock == "some/lock")
		}
		if page.Next == "" {
			break
		}
		require.Len(t, page.Leases, 2)
		cursor = "&cursor=" + page.Next
	}
	require.Equal(t, want, seen)
}
