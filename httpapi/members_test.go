package httpapi

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/raftnode"
	"trivet/trivetpb"
)

// Each call reaches the node as the change that it names, and its answer says
// whether anything was changed.
func TestMembershipCalls(t *testing.T) {
	n := newSoloNode()
	var what string
	var got raftnode.NewMember
	result := raftnode.MemberChange{Index: 9, Changed: true, Members: []raftnode.ConfiguredMember{{ID: "n1", Peer: "n1:1", Voter: true}}}
	n.onChange = func(w string, m raftnode.NewMember) (raftnode.MemberChange, error) {
		what, got = w, m
		return result, nil
	}
	d := openDoor(t, n, Config{})

	r := d.do("POST", "/v1/cluster/members", `{"id":"n4","peer":"10.0.0.4:7171","role":"replica","incarnation":"ab"}`)
	require.Equal(t, 201, r.status, r.body)
	require.Equal(t, "add", what)
	require.Equal(t, raftnode.NewMember{ID: "n4", Peer: "10.0.0.4:7171", Replica: true, Incarnation: "ab"}, got)
	require.JSONEq(t, `{"cluster":"c-test","id":"n4","peer":"10.0.0.4:7171","role":"replica","catching_up":false,"changed":true,"index":9,
		"members":[{"id":"n1","peer":"n1:1","role":"voter"}]}`, r.body)

	result.CatchingUp = true
	r = d.do("POST", "/v1/cluster/members", `{"id":"n4","peer":"10.0.0.4:7171"}`)
	require.Equal(t, 201, r.status)
	require.False(t, got.Replica, "a voter unless said otherwise")
	require.Contains(t, r.body, `"role":"replica","catching_up":true`)
	result.CatchingUp, result.Changed = false, false
	r = d.do("POST", "/v1/cluster/members", `{"id":"n4","peer":"10.0.0.4:7171","role":"voter"}`)
	require.Equal(t, 200, r.status)
	require.Contains(t, r.body, `"role":"voter","catching_up":false,"changed":false`)

	for _, c := range []struct{ method, path, what string }{
		{"DELETE", "/v1/cluster/members/n.4", "remove"},
		{"POST", "/v1/cluster/members/n.4/promote", "promote"},
		{"POST", "/v1/cluster/members/n.4/demote", "demote"},
	} {
		r = d.do(c.method, c.path, "")
		require.Equal(t, 200, r.status, c.path)
		require.Equal(t, c.what, what)
		require.Equal(t, "n.4", got.ID)
		require.JSONEq(t, `{"id":"n.4","changed":false,"index":9}`, r.body)
	}
	r = d.do("POST", "/v1/cluster/transfer", `{"to":"n2"}`)
	require.JSONEq(t, `{"leader":"n2"}`, r.body)
	require.Equal(t, "transfer", what)
	r = d.do("POST", "/v1/cluster/transfer", "")
	require.Equal(t, 200, r.status)
	require.Empty(t, got.ID)
}

func TestMembershipRefusals(t *testing.T) {
	n := newSoloNode()
	n.onChange = func(string, raftnode.NewMember) (raftnode.MemberChange, error) {
		return raftnode.MemberChange{}, &trivetpb.Problem{Code: trivetpb.Code_MEMBER_CONFLICT, Detail: "why"}
	}
	d := openDoor(t, n, Config{})
	r := d.do("DELETE", "/v1/cluster/members/n2", "")
	require.Equal(t, 409, r.status)
	var p struct{ Code, Detail, Outcome string }
	require.NoError(t, json.Unmarshal([]byte(r.body), &p))
	require.Equal(t, "member_conflict", p.Code)
	require.Equal(t, "not_applied", p.Outcome)

	n.onChange = func(string, raftnode.NewMember) (raftnode.MemberChange, error) {
		t.Error("it must not get that far")
		return raftnode.MemberChange{}, nil
	}
	for _, c := range []struct {
		method, path, body string
		headers            []string
		detail             string
	}{
		{"POST", "/v1/cluster/members", ``, nil, "field id is missing"},
		{"POST", "/v1/cluster/members", `{"id":"n4"}`, nil, "field peer is missing"},
		{"POST", "/v1/cluster/members", `{"id":"n4","peer":"a:1","role":"leader"}`, nil, `must be \"voter\" or \"replica\"`},
		{"POST", "/v1/cluster/members", `{"id":"n4","peer":"a:1","rule":"voter"}`, nil, "rule"},
		{"POST", "/v1/cluster/members", `{"id":"n4","peer":"a:1","to":"n2"}`, nil, "no such field"},
		{"POST", "/v1/cluster/members", `{"id":4,"peer":"a:1"}`, nil, "id"},
		{"POST", "/v1/cluster/members", `{"id":"n4","peer":"a:1"}`, []string{"Idempotency-Key: k"}, ""},
		{"POST", "/v1/cluster/members", `{"id":"n4","peer":"a:1"}`, []string{"If-None-Match: *"}, ""},
		{"POST", "/v1/cluster/transfer", `{"id":"n2"}`, nil, "no such field"},
		{"DELETE", "/v1/cluster/members/n4", "{}", nil, "takes no body"},
		{"POST", "/v1/cluster/members/n4/promote", "{}", nil, "takes no body"},
	} {
		r := d.do(c.method, c.path, c.body, c.headers...)
		require.Equal(t, 400, r.status, "%s %s %s: %s", c.method, c.path, c.body, r.body)
		require.Contains(t, r.body, c.detail)
	}
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/v1/cluster/members", 405}, {"POST", "/v1/cluster/members/n4", 405}, {"GET", "/v1/cluster/transfer", 405},
		{"POST", "/v1/cluster/members/n4/exalt", 404}, {"POST", "/v1/cluster/members/n4/x/promote", 404},
	} {
		require.Equal(t, c.status, d.do(c.method, c.path, "").status, c.path)
	}
}
