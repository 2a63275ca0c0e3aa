package httpapi

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// Batches of all shapes use the same memory one after the other, and beside each
// other: each gets its own answers, and what it wrote is what is there. (Bodies are
// overwritten as they come back: TestMain.)
func TestBatchesInTheSameMemory(t *testing.T) {
	node := newSoloNode()
	d := openDoor(t, node, Config{})
	var wg sync.WaitGroup
	for caller := range 6 {
		session, err := strconv.ParseUint(strings.TrimPrefix(d.session(), "Trivet-Session: "), 10, 64)
		require.NoError(t, err)
		wg.Go(func() {
			seq := uint64(0)
			random := rand.New(rand.NewPCG(uint64(caller), 5))
			values := map[string]string{} // of this caller's keys
			for round := range 60 {
				var ops []*trivetpb.Op
				var check []func(r *trivetpb.Result) error
				before := map[string]string{}
				for k, v := range values {
					before[k] = v
				}
				writes := round%3 != 0 // else reads alone
				for i := range 1 + random.IntN(40) {
					key := fmt.Sprintf("%d/%d", caller, random.IntN(50))
					switch kind := random.IntN(8); {
					case kind == 0:
						ops = append(ops, putOp("", "v"))
						check = append(check, func(r *trivetpb.Result) error {
							if r.GetProblem().GetCode() != trivetpb.Code_BAD_KEY {
								return fmt.Errorf("a put of no key: %v", r)
							}
							return nil
						})
					case kind < 4 && writes:
						key = fmt.Sprintf("%s/%d/%d", key, round, i) // its only write
						value := key + strings.Repeat("v", random.IntN(900))
						values[key] = value
						ops = append(ops, putOp(key, value))
						check = append(check, func(r *trivetpb.Result) error {
							if p := r.GetPut(); p.GetVersion() != 1 || p.Prev != nil || r.Problem != nil {
								return fmt.Errorf("a put of a new key: %v", r)
							}
							return nil
						})
					default:
						want, known := "", false
						for k, v := range before { // some key
							key, want, known = k, v, true
							break
						}
						ops = append(ops, &trivetpb.Op{Op: &trivetpb.Op_Get{Get: &trivetpb.GetOp{Key: []byte(key)}}})
						check = append(check, func(r *trivetpb.Result) error {
							if it := r.GetGet().GetItem(); (it != nil) != known || string(it.GetValue()) != want || known && string(it.GetKey()) != key {
								return fmt.Errorf("a get of %s: %v, not %q", key, r, want)
							}
							return nil
						})
					}
				}
				req := &trivetpb.BatchRequest{}
				for _, op := range ops {
					req.Ops = append(req.Ops, &trivetpb.BatchOp{Op: op})
				}
				if random.IntN(2) == 0 { // else nothing may be taken for a repeat
					req.Session = session
					for _, op := range req.Ops {
						if op.Op.GetPut() != nil {
							seq++
							op.Seq = seq
						}
					}
				}
				results, err := d.batchOf(req)
				if err == nil && len(results) != len(ops) {
					err = fmt.Errorf("%d results", len(results))
				}
				for i := 0; err == nil && i < len(results); i++ {
					err = check[i](results[i])
				}
				if err != nil {
					t.Errorf("caller %d, round %d: %v", caller, round, err)
					return
				}
			}
			for key, value := range values {
				if it, ok, _ := node.data.Get([]byte(key)); !ok || string(it.Value) != value {
					t.Errorf("%s has another value than was put", key)
					return
				}
			}
		})
	}
	wg.Wait()
}

// batchOf sends a batch, from other goroutines than the test's too.
func (d *door) batchOf(req *trivetpb.BatchRequest) ([]*trivetpb.Result, error) {
	body, err := req.MarshalVT()
	if err != nil {
		return nil, err
	}
	r, err := d.client.Post("http://"+d.addr+"/v1/batch", protobuf, strings.NewReader(string(body)))
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	answer, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != 200 {
		return nil, fmt.Errorf("status %d, %v", r.StatusCode, err)
	}
	resp := &trivetpb.BatchResponse{}
	err = proto.Unmarshal(answer, resp)
	return resp.Results, err
}

// BenchmarkBatchPuts is a batch of 64 puts of 256 bytes, as the Go client sends it, up to the
// node and back.
func BenchmarkBatchPuts(b *testing.B) {
	req := &trivetpb.BatchRequest{Session: 3}
	var results []*trivetpb.Result
	for i := range 64 {
		req.Ops = append(req.Ops, &trivetpb.BatchOp{Op: putOp(fmt.Sprintf("some/key/%d", i), strings.Repeat("v", 256)), Seq: uint64(i + 1)})
		results = append(results, &trivetpb.Result{Revision: 7, Result: &trivetpb.Result_Put{Put: &trivetpb.PutResult{Version: 5}}})
	}
	body, err := req.MarshalVT()
	require.NoError(b, err)
	benchmarkWith(b, results, "POST", "/v1/batch", string(body), "Content-Type: application/x-protobuf")
}
