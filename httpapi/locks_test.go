package httpapi

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

type lockJSON struct {
	Name, Name64 string
	Token, Lease uint64
	Owner, TTL   string
	Remaining    string
	Holder       *lockStateJSON
	Queue        []lockStateJSON
	Waiting      int
	Released     bool
	Revision     uint64
}

type lockStateJSON struct {
	Token, Lease          uint64
	Owner, TTL, Remaining string
}

// lock takes a lock that is free.
func (d *door) lock(name, document string) lockJSON {
	d.t.Helper()
	r := d.do("POST", "/v1/locks/"+name, document)
	require.Equal(d.t, 200, r.status, r.body)
	var l lockJSON
	r.decode(d.t, &l)
	return l
}

func (d *door) lockState(name string) lockJSON {
	d.t.Helper()
	var l lockJSON
	d.do("GET", "/v1/locks/"+name, "").decode(d.t, &l)
	return l
}

func (d *door) release(name string, token uint64) {
	d.t.Helper()
	r := d.do("DELETE", "/v1/locks/"+name+"?token="+itoa(int(token)), "")
	require.Equal(d.t, 200, r.status, r.body)
}

func TestLocks(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	require.Equal(t, `{"name":"a/b","holder":null,"queue":[],"waiting":0}`+"\n", d.do("GET", "/v1/locks/a%2Fb", "").body)
	a := d.lock("a/b", `{"ttl":"10s","owner":"A"}`)
	require.Equal(t, "a/b", a.Name)
	require.Equal(t, "10s", a.TTL)
	require.Equal(t, "A", a.Owner)
	p := d.do("POST", "/v1/locks/a%2fb", `{"owner":"B"}`).requireProblem(t, trivetpb.Code_LOCKED)
	require.Equal(t, holderJSON{a.Token, a.Lease, "A", "10s"}, *p.Holder)
	require.True(t, p.Retryable)
	require.Equal(t, "not_applied", p.Outcome)

	d.node.advance(t, 9*time.Second)
	require.Equal(t, &lockStateJSON{a.Token, a.Lease, "A", "10s", "1s"}, d.lockState("a/b").Holder)
	var kept lockJSON
	d.do("PUT", "/v1/locks/a/b", `{"token":`+itoa(int(a.Token))+`}`).decode(t, &kept)
	require.Equal(t, lockJSON{Name: "a/b", Token: a.Token, Lease: a.Lease, TTL: "10s", Remaining: "10s"}, kept)
	d.node.advance(t, 9*time.Second)
	for _, token := range []uint64{a.Token - 1, a.Token + 1, maxNumber} {
		if token != 0 {
			d.do("PUT", "/v1/locks/a/b", `{"token":`+itoa(int(token))+`}`).requireProblem(t, trivetpb.Code_GUARD_FAILED)
			d.do("DELETE", "/v1/locks/a/b?token="+itoa(int(token)), "").requireProblem(t, trivetpb.Code_GUARD_FAILED)
		}
	}
	// A write is done while the lock is held, and not after.
	guard := "Trivet-Guard: a%2Fb=" + itoa(int(a.Token))
	require.Equal(t, 201, d.do("PUT", "/v1/kv/k", "1", guard).status)
	require.Equal(t, `{"released":true,"revision":2}`+"\n", d.do("DELETE", "/v1/locks/a/b?token="+itoa(int(a.Token)), "").body)
	p = d.do("PUT", "/v1/kv/k", "2", guard).requireProblem(t, trivetpb.Code_GUARD_FAILED)
	require.Equal(t, "not_applied", p.Outcome)
	d.do("DELETE", "/v1/locks/a/b?token="+itoa(int(a.Token)), "").requireProblem(t, trivetpb.Code_GUARD_FAILED)

	b := d.lock("a/b", "")
	require.Greater(t, b.Token, a.Token)
	d.do("PUT", "/v1/kv/k", "2", guard).requireProblem(t, trivetpb.Code_GUARD_FAILED)
	for _, body := range []string{
		`{"guard":[{"lock":"a/b","token":%}],"then":[{"op":"put","key":"k","value":"3"}]}`,
		`{"guard":[{"lock64":"YS9i","token":%}],"then":[{"op":"get","key":"k"}]}`,
	} {
		d.do("POST", "/v1/txn", strings.Replace(body, "%", itoa(int(a.Token)), 1)).requireProblem(t, trivetpb.Code_GUARD_FAILED)
		require.Equal(t, 200, d.do("POST", "/v1/txn", strings.Replace(body, "%", itoa(int(b.Token)), 1)).status)
	}
	r := d.do("POST", "/v1/batch", `{"ops":[{"op":"put","key":"k","value":"4","guard":[{"lock":"a/b","token":`+itoa(int(a.Token))+`}]},{"op":"add","key":"n","delta":1}]}`)
	require.Contains(t, r.body, `"code":"guard_failed"`)
	require.Contains(t, r.body, `"value":1`)
	r = d.do("POST", "/v1/batch", `{"ops":[{"op":"put","key":"k","value":"4"},{"op":"add","key":"n","delta":1}]}`, guard)
	require.Equal(t, 2, strings.Count(r.body, `"code":"guard_failed"`))
	require.Equal(t, "3", d.do("GET", "/v1/kv/k", "").body)
	require.Equal(t, "1", d.do("GET", "/v1/kv/n", "").body)

	// A lock ends with its lease, and its lease with the lock.
	d.do("DELETE", "/v1/leases/"+itoa(int(b.Lease)), "")
	require.Nil(t, d.lockState("a/b").Holder)
	c := d.lock("a/b", `{"ttl":"1s"}`)
	d.node.advance(t, time.Second)
	require.Nil(t, d.lockState("a/b").Holder)
	d.do("GET", "/v1/leases/"+itoa(int(c.Lease)), "").requireProblem(t, trivetpb.Code_LEASE_NOT_FOUND)
	d.do("PUT", "/v1/locks/a/b", `{"token":`+itoa(int(c.Token))+`}`).requireProblem(t, trivetpb.Code_GUARD_FAILED)
}
