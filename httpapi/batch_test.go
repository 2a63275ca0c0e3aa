package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"trivet/raftnode"
	"trivet/trivetpb"
)

func TestBatches(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	d.node.put(t, "a", "1", "text", "x")
	r := d.do("POST", "/v1/batch", `{"ops":[
		{"op":"put","key":"b","value":"2"},
		{"op":"put","key":"a","value":"2","if_match":2,"prev":true},
		{"op":"put","key":"a","value":"3","if_none_match":true},
		{"op":"put","key":"c","value":"3","if_none_match":false},
		{"op":"delete","key":"none"},
		{"op":"delete","key":"a","if_match":77},
		{"op":"add","key":"n","delta":4},
		{"op":"add","key":"text","delta":4},
		{"op":"put","key":"","value":""},
		{"op":"txn","if":[{"key":"n","target":"value","op":"==","value":"4"}],"then":[{"op":"put","key":"t","value":"5"}]},
		{"op":"txn","then":[{"op":"put","key":"t","value":"5"},{"op":"add","key":"t","delta":1}]}
	]}`)
	require.Equal(t, 200, r.status, r.body)
	var got struct {
		Revision uint64
		Results  []struct {
			Status, Version, Deleted, Value int
			Revision                        uint64
			Created                         bool
			Prev                            *struct{ Value string }
			Succeeded                       bool
			Results                         []json.RawMessage
			Problem                         *problemJSON
		}
	}
	require.NoError(t, json.Unmarshal([]byte(r.body), &got))
	var statuses []int
	for _, res := range got.Results {
		statuses = append(statuses, res.Status)
	}
	require.Equal(t, []int{201, 200, 412, 201, 200, 412, 200, 409, 400, 200, 400}, statuses)
	require.EqualValues(t, 8, got.Revision)
	require.Equal(t, "8", r.header.Get("Trivet-Revision"))
	require.Empty(t, r.header.Get("Trivet-Consistency"), "nothing was read")
	require.Equal(t, "1", got.Results[1].Prev.Value)
	require.EqualValues(t, 5, *got.Results[2].Problem.ModRevision)
	require.Equal(t, "precondition_failed", got.Results[5].Problem.Code)
	require.Equal(t, 4, got.Results[6].Value)
	require.Equal(t, "not_a_number", got.Results[7].Problem.Code)
	require.Equal(t, "bad_key", got.Results[8].Problem.Code)
	require.True(t, got.Results[9].Succeeded)
	require.Equal(t, `{"status":201,"version":1,"created":true}`, string(got.Results[9].Results[0]))
	require.Equal(t, "duplicate_key", got.Results[10].Problem.Code)

	r = d.do("POST", "/v1/batch?consistency=stale", `{"ops":[{"op":"get","key":"a"},{"op":"get","key":"none"},{"op":"range","prefix":"","limit":1}]}`)
	require.Equal(t, `{"revision":8,"results":[{"status":200,"revision":8,"key":"a","value":"2","create_revision":2,"mod_revision":5,"version":2,"lease":0},`+
		`{"status":404,"revision":8,"problem":{"type":"urn:trivet:problem:key_not_found","title":"There is no such key","status":404,"code":"key_not_found","outcome":"not_applied","retryable":false}},`+
		`{"status":200,"revision":8,"items":[{"key":"a","value":"2","create_revision":2,"mod_revision":5,"version":2,"lease":0}],"count":6,"more":true}]}`+"\n",
		r.body)
	require.Equal(t, "stale", r.header.Get("Trivet-Consistency"))

	require.Equal(t, `{"revision":8,"results":[]}`+"\n", d.do("POST", "/v1/batch", `{"ops":[]}`).body)
}

// All writes of a batch are proposed at once, all reads are proven at once, and
// a failure of one side leaves the other alone.
func TestBatchesAskTheNodeOnce(t *testing.T) {
	const ops = `{"ops":[{"op":"put","key":"a","value":"1"},{"op":"get","key":"a"},{"op":"put","key":"b","value":"1"},{"op":"range","prefix":"a"},{"op":"put","key":"","value":""}]}`
	proposed, read := make(chan int, 9), make(chan bool, 9)
	noLeader := &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER}
	for name, row := range map[string]struct {
		proposeErr, readErr error
		want                []int
	}{
		"both go on":                 {nil, nil, []int{201, 0, 201, 200, 400}},
		"no leader for the writes":   {noLeader, nil, []int{503, 404, 503, 200, 400}},
		"no proof for the reads":     {nil, &trivetpb.Problem{Code: trivetpb.Code_NOT_FRESH}, []int{201, 503, 201, 503, 400}},
		"the writes' time is over":   {context.DeadlineExceeded, nil, []int{504, 404, 504, 200, 400}},
		"the writes fail internally": {errors.New("boom"), nil, []int{500, 404, 500, 200, 400}},
	} {
		t.Run(name, func(t *testing.T) {
			node := newSoloNode()
			node.onPropose = func(_ context.Context, commands []*trivetpb.Command) ([]*trivetpb.Result, error) {
				proposed <- len(commands)
				<-read // both sides are under way at once
				if row.proposeErr != nil {
					return nil, row.proposeErr
				}
				return node.apply(commands, nil)
			}
			node.onRead = func(context.Context, raftnode.ReadOptions) (raftnode.Proof, error) {
				require.Equal(t, 2, <-proposed)
				read <- true
				return raftnode.Proof{}, row.readErr
			}
			d := openDoor(t, node, Config{})
			r := d.do("POST", "/v1/batch", ops)
			require.Equal(t, 200, r.status)
			var got struct {
				Results []struct {
					Status  int
					Problem *problemJSON
				}
			}
			require.NoError(t, json.Unmarshal([]byte(r.body), &got))
			require.Empty(t, proposed)
			require.Empty(t, read)
			for i, res := range got.Results {
				if row.want[i] != 0 { // a get beside a put may or may not see it
					require.Equal(t, row.want[i], res.Status, "op %d", i)
				}
				if res.Status == 504 || res.Status == 500 {
					require.Equal(t, "unknown", res.Problem.Outcome)
				} else if res.Problem != nil {
					require.Equal(t, "not_applied", res.Problem.Outcome)
				}
			}
			if row.proposeErr != nil && row.proposeErr != error(noLeader) && row.proposeErr != context.DeadlineExceeded {
				require.Contains(t, d.log.String(), "boom")
			} else {
				require.Empty(t, d.log.String())
			}
		})
	}
}

// A panic beside the request's own goroutine costs the request, not the process.
func TestBatchesThatPanic(t *testing.T) {
	node := newSoloNode()
	node.onPropose = func(context.Context, []*trivetpb.Command) ([]*trivetpb.Result, error) { panic("boom") }
	d := openDoor(t, node, Config{})
	p := d.do("POST", "/v1/batch", `{"ops":[{"op":"put","key":"a","value":"1"},{"op":"get","key":"a"}]}`).requireProblem(t, trivetpb.Code_INTERNAL)
	require.Equal(t, "unknown", p.Outcome)
	require.Contains(t, d.log.String(), "boom")
}

func TestBatchSizes(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{MaxDocumentBytes: 1 << 20})
	ops := func(n int) string { return strings.Repeat(`,{"op":"get","key":"a"}`, n)[1:] }
	r := d.do("POST", "/v1/batch", `{"ops":[`+ops(maxBatchOps)+`]}`)
	require.Equal(t, 200, r.status)
	require.Equal(t, maxBatchOps, strings.Count(r.body, `{"status":404`))
	p := d.do("POST", "/v1/batch", `{"ops":[`+ops(maxBatchOps+1)+`]}`).requireProblem(t, trivetpb.Code_TOO_LARGE)
	require.EqualValues(t, maxBatchOps, *p.Limit)

	require.Equal(t, 200, d.do("POST", "/v1/txn", `{"then":[`+ops(maxTxnOps)+`],"else":[`+ops(maxTxnOps)+`]}`).status)
	p = d.do("POST", "/v1/txn", `{"then":[`+ops(5*maxTxnOps)+`]}`).requireProblem(t, trivetpb.Code_TOO_LARGE)
	require.EqualValues(t, maxTxnOps, *p.Limit)
	compares := strings.Repeat(`,{"key":"a","target":"lease","op":"==","number":0}`, maxTxnOps+1)[1:]
	d.do("POST", "/v1/txn", `{"if":[`+compares+`]}`).requireProblem(t, trivetpb.Code_TOO_LARGE)

	txns := strings.Repeat(`,{"op":"txn","then":[`+ops(maxTxnOps)+`]}`, 80)[1:]
	wide := openDoor(t, d.node, Config{})
	p = wide.do("POST", "/v1/batch", `{"ops":[`+strings.Repeat(txns+",", 2)+txns+`]}`).requireProblem(t, trivetpb.Code_TOO_LARGE)
	require.EqualValues(t, maxElements, *p.Limit)
}

// The reads of a batch return so much together and no more; those behind fail
// each by itself.
func TestBatchAnswersAreBounded(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	d.node.put(t, "a", strings.Repeat("v", 1<<20))
	r := d.do("POST", "/v1/batch", `{"ops":[`+strings.Repeat(`,{"op":"get","key":"a"}`, 70)[1:]+`]}`)
	require.Equal(t, 200, r.status)
	require.Equal(t, 64, strings.Count(r.body, `"status":200`))
	require.Equal(t, 6, strings.Count(r.body, `"code":"too_large"`))
}

// protoBatch sends a batch as protobuf and reads the answer as such.
func (d *door) protoBatch(ops []*trivetpb.Op) *trivetpb.BatchResponse {
	d.t.Helper()
	req := &trivetpb.BatchRequest{}
	for _, op := range ops {
		req.Ops = append(req.Ops, &trivetpb.BatchOp{Op: op})
	}
	body, err := req.MarshalVT()
	require.NoError(d.t, err)
	r := d.do("POST", "/v1/batch", string(body), "Content-Type: application/x-protobuf")
	require.Equal(d.t, 200, r.status, r.body)
	require.Equal(d.t, protobuf, r.header.Get("Content-Type"))
	resp := &trivetpb.BatchResponse{}
	require.NoError(d.t, resp.UnmarshalVT([]byte(r.body)))
	return resp
}

func TestProtobufThatIsRefused(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	wrap := func(field protowire.Number, inner []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), inner)
	}
	get := wrap(3, wrap(1, []byte("a")))
	nest := get
	for range 2_000 {
		nest = wrap(6, wrap(2, nest)) // Op.txn, TxnOp.then
	}
	for name, row := range map[string]struct {
		body []byte
		code trivetpb.Code
		says string
	}{
		"no protobuf":                {[]byte(`{"ops":[]}`), trivetpb.Code_BAD_REQUEST, ""},
		"a tag that is cut off":      {[]byte{0x80}, trivetpb.Code_BAD_REQUEST, "tag"},
		"an op that is cut off":      {[]byte{0x0a, 0x05, 0x0a}, trivetpb.Code_BAD_REQUEST, "cut off"},
		"an unknown field":           {wrap(15, nil), trivetpb.Code_BAD_REQUEST, "BatchRequest has an unknown field 15"},
		"an unknown field of an op":  {wrap(1, wrap(15, []byte("guard"))), trivetpb.Code_BAD_REQUEST, "BatchOp has an unknown field 15"},
		"an unknown operation":       {wrap(1, wrap(1, wrap(15, nil))), trivetpb.Code_BAD_REQUEST, "Op has an unknown field 15"},
		"a wrong wire type":          {protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1), trivetpb.Code_BAD_REQUEST, "wrong wire type"},
		"a number that is cut off":   {wrap(1, wrap(1, wrap(1, []byte{0x18, 0x80}))), trivetpb.Code_BAD_REQUEST, "malformed"},
		"a txn inside a txn":         {wrap(1, wrap(1, wrap(6, wrap(2, wrap(6, nil))))), trivetpb.Code_BAD_REQUEST, "a txn inside a txn"},
		"a tower of txns":            {wrap(1, wrap(1, nest)), trivetpb.Code_BAD_REQUEST, "a txn inside a txn"},
		"more operations than taken": {[]byte(strings.Repeat("\x0a\x00", maxBatchOps+1)), trivetpb.Code_TOO_LARGE, "4096"},
		"a txn of nothings":          {wrap(1, wrap(1, wrap(6, []byte(strings.Repeat("\x12\x00", maxElements+1))))), trivetpb.Code_TOO_LARGE, "65536"},
	} {
		r := d.do("POST", "/v1/batch", string(row.body), "Content-Type: application/x-protobuf")
		require.Contains(t, r.requireProblem(t, row.code).Detail, row.says, name)
	}
	// What is well-formed and means nothing is its own op's problem.
	resp := d.protoBatch([]*trivetpb.Op{
		nil, {}, {Op: &trivetpb.Op_Put{}}, {Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{}}},
		{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{Key: []byte("a"), Precondition: &trivetpb.Precondition{Kind: 99}}}},
		putOp("a", "1"),
	})
	for i, r := range resp.Results[:5] {
		require.NotNil(t, r.Problem, "op %d", i)
	}
	require.True(t, resp.Results[5].GetPut().Created)
}

func TestBatchMediaTypes(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	jsonBody, protoBody := `{"ops":[]}`, ""
	for _, row := range []struct{ contentType, accept, want string }{
		{"", "", jsonType},
		{"application/json", "*/*", jsonType},
		{"application/json", "application/x-protobuf", protobuf},
		{"application/json", "application/x-protobuf;q=0.5, application/json", jsonType},
		{"application/x-protobuf", "", protobuf},
		{"application/x-protobuf", "application/json", jsonType},
		{"application/x-protobuf", "text/html", protobuf},
		{"application/x-www-form-urlencoded", "*/*", jsonType},
	} {
		body, headers := jsonBody, []string{}
		if row.contentType == protobuf {
			body = protoBody
		}
		if row.contentType != "" {
			headers = append(headers, "Content-Type: "+row.contentType)
		}
		if row.accept != "" {
			headers = append(headers, "Accept: "+row.accept)
		}
		r := d.do("POST", "/v1/batch", body, headers...)
		require.Equal(t, 200, r.status, r.body)
		require.Equal(t, row.want, r.header.Get("Content-Type"), "%+v", row)
	}
	d.do("POST", "/v1/batch", jsonBody, "Content-Type: text/plain").requireProblem(t, trivetpb.Code_UNSUPPORTED_MEDIA_TYPE)
	d.do("POST", "/v1/batch", jsonBody, "Content-Type: application/x-protobuf").requireProblem(t, trivetpb.Code_BAD_REQUEST)
}
