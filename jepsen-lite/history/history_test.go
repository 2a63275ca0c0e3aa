package history

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Lines come out whole, numbered and in the order of their times, whoever writes
// meanwhile, and the calls have what the lines say.
func TestRecordOfManyWriters(t *testing.T) {
	var out bytes.Buffer
	r := NewRecorder(&out, time.Now())
	var wg sync.WaitGroup
	for p := range 8 {
		wg.Go(func() {
			for i := range 50 {
				r.Begin("w", p, "write", "n1", i).End(OK, nil, "")
			}
		})
	}
	wg.Wait()
	r.Note("kill", "n2")
	require.NoError(t, r.Flush())

	dec := json.NewDecoder(&out)
	var last Op
	open := map[int]bool{}
	for i := range 8*50*2 + 1 {
		var op Op
		require.NoError(t, dec.Decode(&op))
		require.EqualValues(t, i, op.Index)
		require.GreaterOrEqual(t, op.Time, last.Time)
		if op.Process != Nemesis {
			require.Equal(t, op.Type == Invoke, !open[op.Process], "a process does one thing at a time")
			open[op.Process] = op.Type == Invoke
		}
		last = op
	}
	require.Equal(t, "kill", last.F)
	require.False(t, dec.More())

	calls := r.Take("w")
	require.Len(t, calls, 400)
	require.Empty(t, r.Take("w"))
	for _, c := range calls {
		require.LessOrEqual(t, c.Invoked, c.Returned)
	}
}

func TestFlushNamesOperationsWithoutAnEnd(t *testing.T) {
	r := NewRecorder(nil, time.Now())
	p := r.Begin("w", 0, "read", "n1", nil)
	require.ErrorContains(t, r.Flush(), "1 operations")
	p.End(Info, nil, "timeout")
	require.NoError(t, r.Flush())
}

func TestEDN(t *testing.T) {
	in := strings.Join([]string{
		`{"index":0,"time":5,"process":3,"type":"invoke","f":"txn","value":[["append","x",1],["r","y",null]],"node":"n1","workload":"append"}`,
		`{"index":1,"time":9,"process":3,"type":"ok","f":"txn","value":[["append","x",1],["r","y",[1,2]]],"node":"n1","workload":"append"}`,
		`{"index":2,"time":10,"process":-1,"type":"info","f":"kill","value":{"node":"n\"2","all":true}}`,
	}, "\n")
	var out bytes.Buffer
	require.NoError(t, EDN(&out, strings.NewReader(in)))
	require.Equal(t, `{:index 0, :time 5, :process 3, :type :invoke, :f :txn, :value [[:append "x" 1] [:r "y" nil]], :node "n1", :workload "append"}
{:index 1, :time 9, :process 3, :type :ok, :f :txn, :value [[:append "x" 1] [:r "y" [1 2]]], :node "n1", :workload "append"}
{:index 2, :time 10, :process :nemesis, :type :info, :f :kill, :value {:all true, :node "n\"2"}}
`, out.String())
	require.Error(t, EDN(&out, strings.NewReader(`{"index":`)))
}
