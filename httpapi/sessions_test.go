package httpapi

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// A write of a session is applied once however often it is sent.
func TestSessions(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	session := d.session()
	id := strings.TrimPrefix(session, "Trivet-Session: ")
	for range 3 {
		r := d.do("POST", "/v1/kv/n?add=5", "", session+";seq=1")
		require.Equal(t, `{"value":5,"revision":2}`+"\n", r.body)
		require.Equal(t, "2", r.header.Get("Trivet-Revision"))
	}
	require.Equal(t, "true", d.do("POST", "/v1/kv/n?add=5", "", session+";seq=1").header.Get("Trivet-Replayed"))
	require.Equal(t, `{"value":6,"revision":3}`+"\n", d.do("POST", "/v1/kv/n?add=1", "", session+";seq=2;ack=0").body)
	// A repeat may come after later ones, and is the first one's whatever it says.
	require.Equal(t, `{"value":5,"revision":2}`+"\n", d.do("POST", "/v1/kv/n?add=5", "", session+";seq=1").body)
	// The status of the first stays, and failures are answers too.
	require.Equal(t, 201, d.do("PUT", "/v1/kv/a", "x", session+";seq=3").status)
	require.Equal(t, 201, d.do("PUT", "/v1/kv/a", "x", session+";seq=3").status)
	d.do("POST", "/v1/kv/a?add=1", "", session+";seq=4").requireProblem(t, trivetpb.Code_NOT_A_NUMBER)
	require.Equal(t, 200, d.do("PUT", "/v1/kv/a", "1").status)
	d.do("POST", "/v1/kv/a?add=1", "", session+";seq=4").requireProblem(t, trivetpb.Code_NOT_A_NUMBER)
	// What was acknowledged is forgotten, and not done again.
	require.Equal(t, 200, d.do("POST", "/v1/kv/n?add=1", "", session+";seq=5;ack=4").status)
	p := d.do("POST", "/v1/kv/n?add=5", "", session+";seq=1").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Equal(t, "unknown", p.Outcome)
	require.Equal(t, "7", d.do("GET", "/v1/kv/n", "").body)

	// In a batch, and against the single call.
	r := d.do("POST", "/v1/batch", `{"session":`+id+`,"ack":4,"ops":[{"op":"add","key":"n","delta":1,"seq":5},{"op":"add","key":"n","delta":1,"seq":6}]}`)
	require.Contains(t, r.body, `"replayed":true,"value":7}`)
	require.Contains(t, r.body, `"value":8}`)
	require.Equal(t, `{"value":8,"revision":`+r.header.Get("Trivet-Revision")+"}\n", d.do("POST", "/v1/kv/n?add=1", "", session+";seq=6").body)

	// It lives as long as it is used, or kept.
	for range 3 {
		d.node.advance(t, 50*time.Second)
		require.Equal(t, `{"session":`+id+`,"ttl":"1m0s"}`+"\n", d.do("PUT", "/v1/sessions/"+id, "").body)
	}
	d.node.advance(t, time.Minute)
	for _, call := range []struct{ method, path, header string }{
		{"POST", "/v1/kv/n?add=1", session + ";seq=6"}, {"POST", "/v1/kv/n?add=1", session + ";seq=7"},
	} {
		p := d.do(call.method, call.path, "", call.header).requireProblem(t, trivetpb.Code_SESSION_EXPIRED)
		require.Equal(t, "unknown", p.Outcome)
	}
	d.do("PUT", "/v1/sessions/"+id, "").requireProblem(t, trivetpb.Code_SESSION_EXPIRED)
	require.Equal(t, "8", d.do("GET", "/v1/kv/n", "").body)

	session = d.session()
	id = strings.TrimPrefix(session, "Trivet-Session: ")
	require.Equal(t, 200, d.do("POST", "/v1/kv/n?add=1", "", session+";seq=1").status)
	require.Equal(t, `{"closed":true,"session":`+id+"}\n", d.do("DELETE", "/v1/sessions/"+id, "").body)
	d.do("POST", "/v1/kv/n?add=1", "", session+";seq=1").requireProblem(t, trivetpb.Code_SESSION_EXPIRED)
}

// A request of an idempotency key is done once, and is one request.
func TestIdempotencyKeys(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	const key = "Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324"
	for i := range 3 {
		r := d.do("PUT", "/v1/kv/a?ttl=1h", "1", key)
		require.Equal(t, 201, r.status)
		require.Equal(t, i > 0, r.header.Get("Trivet-Replayed") == "true")
	}
	require.Equal(t, 201, d.do("PUT", "/v1/kv/a?ttl=1h&timeout=1s", "1", key).status)
	for _, call := range []struct{ method, path, body string }{
		{"PUT", "/v1/kv/a?ttl=2h", "1"}, {"PUT", "/v1/kv/a?ttl=1h", "2"}, {"PUT", "/v1/kv/b?ttl=1h", "1"}, {"DELETE", "/v1/kv/a", ""},
		{"POST", "/v1/leases", `{"ttl":"10s"}`}, {"POST", "/v1/batch", `{"ops":[{"op":"put","key":"a","value":"1","ttl":"1h"},{"op":"delete","key":"a"}]}`},
	} {
		p := d.do(call.method, call.path, call.body, key).requireProblem(t, trivetpb.Code_IDEMPOTENCY_KEY_REUSED)
		require.Equal(t, "not_applied", p.Outcome)
	}
	require.Equal(t, "1", d.do("GET", "/v1/kv/a", "").body)
	require.EqualValues(t, 2, d.node.data.Revision())

	// A lease is not granted twice, a lock not taken twice.
	for _, path := range []string{"/v1/leases", "/v1/locks/l", "/v1/sessions"} {
		header := "Idempotency-Key: " + path
		first := d.do("POST", path, `{"ttl":"20s"}`, header)
		require.Less(t, first.status, 300, first.body)
		again := d.do("POST", path, `{"ttl":"20s"}`, header)
		require.Equal(t, first.body, again.body)
		require.Equal(t, first.status, again.status)
		require.Equal(t, "true", again.header.Get("Trivet-Replayed"))
	}

	// A batch: every write of it once.
	batch := `{"ops":[{"op":"add","key":"n","delta":1},{"op":"get","key":"a"},{"op":"add","key":"n","delta":1}]}`
	require.NotContains(t, d.do("POST", "/v1/batch", batch, "Idempotency-Key: b").body, "replayed")
	require.Equal(t, 2, strings.Count(d.do("POST", "/v1/batch", batch, "Idempotency-Key: b").body, `"replayed":true`))
	d.do("POST", "/v1/batch", strings.Replace(batch, "]", `,{"op":"delete","key":"a"}]`, 1), "Idempotency-Key: b").requireProblem(t, trivetpb.Code_IDEMPOTENCY_KEY_REUSED)
	d.do("POST", "/v1/kv/n?add=1", "", "Idempotency-Key: b").requireProblem(t, trivetpb.Code_IDEMPOTENCY_KEY_REUSED)
	require.Equal(t, "2", d.do("GET", "/v1/kv/n", "").body)
	long := "Idempotency-Key: " + strings.Repeat("k", maxIdempotencyKey)
	r := d.do("POST", "/v1/batch", `{"ops":[`+strings.Repeat(`{"op":"get","key":"a"},`, maxBatchOps-2)+`{"op":"delete","key":"x"},{"op":"delete","key":"x"}]}`, long)
	require.Equal(t, 2, strings.Count(r.body, `"deleted":0`), "the longest keys are taken")

	// It is remembered for ten minutes.
	d.node.advance(t, 9*time.Minute)
	require.Equal(t, 201, d.do("PUT", "/v1/kv/a?ttl=1h", "1", key).status)
	d.node.advance(t, 2*time.Minute)
	require.Equal(t, 200, d.do("PUT", "/v1/kv/a", "1", key).status, "then it is another request's")
}
