package client_test

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trivet/client"
)

// awkward are keys that something between two programs likes to tidy up, and
// values that JSON has no place for.
var awkward = []string{
	"plain", "a/b", "/", "//", "a//b", ".", "..", "../..", "a/../b", "./a", "a/.", "a/",
	"%2F", "%", "%%", "a b", "a+b", "a?b=c&d", "a#b", "a;b", `"quoted"`, "\\", "<&>", "\u2028",
	"ünï", "\x00", "\n\r\t", "\xff\xfe", "a\x80/b", ":", "@", "~", "*", strings.Repeat("k", 4096),
	strings.Repeat("\xff", 4096),
}

func TestAnyBytesAreAKeyAndAValue(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	const room = "awkward/"
	for _, name := range awkward {
		for _, key := range []string{name, room + name} {
			if len(key) > 4096 {
				continue
			}
			value := []byte(name)
			put, err := c.Put(ctx, key, value)
			require.NoError(t, err, "%q", key)
			require.True(t, put.Created, "%q", key)
			got, err := c.Get(ctx, key)
			require.NoError(t, err, "%q", key)
			require.Equal(t, client.Item{
				Key: key, Value: value, CreateRevision: put.Revision, ModRevision: put.Revision, Version: 1,
			}, got)

			// The same through documents.
			res, err := c.Txn().
				If(client.Unchanged(got), client.ValueOf(key).Equal(value)).
				Then(client.OpPut(key, value, client.WithPrev()), client.OpGet(key)).
				Commit(ctx)
			require.NoError(t, err, "%q", key)
			require.True(t, res.Succeeded, "%q", key)
			require.Equal(t, got, *res.Results[0].Put.Prev)
			require.Equal(t, key, res.Results[1].Get.Item.Key)
			require.Equal(t, value, res.Results[1].Get.Item.Value)

			var listed []client.Item
			for it, err := range c.List(ctx, client.Between(key, key+"\x00")) {
				require.NoError(t, err, "%q", key)
				listed = append(listed, it)
			}
			require.Equal(t, []client.Item{res.Results[1].Get.Item}, listed)

			deleted, err := c.Delete(ctx, key, client.WithPrev())
			require.NoError(t, err, "%q", key)
			require.EqualValues(t, 1, deleted.Deleted)
			require.Equal(t, listed, deleted.Prev)
		}
	}
}

func TestConditions(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	const key = "conditions"
	_, err := c.Put(ctx, key, []byte("a"), client.IfExists())
	require.Zero(t, requireError(t, err, client.NotApplied, client.ErrConflict).ModRevision)
	first, err := c.Put(ctx, key, nil, client.IfRevision(0))
	require.NoError(t, err)
	require.True(t, first.Created)
	_, err = c.Put(ctx, key, []byte("b"), client.IfAbsent())
	require.Equal(t, first.Revision, requireError(t, err, client.NotApplied, client.ErrConflict).ModRevision)
	second, err := c.Put(ctx, key, []byte("b"), client.IfRevision(first.Revision), client.WithPrev())
	require.NoError(t, err)
	require.False(t, second.Created)
	require.EqualValues(t, 2, second.Version)
	require.Equal(t, []byte{}, second.Prev.Value)
	_, err = c.Delete(ctx, key, client.IfRevision(first.Revision))
	require.Equal(t, second.Revision, requireError(t, err, client.NotApplied, client.ErrConflict).ModRevision)
	_, err = c.Delete(ctx, key, client.IfRevision(0))
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	gone, err := c.Delete(ctx, key, client.IfExists())
	require.NoError(t, err)
	require.EqualValues(t, 1, gone.Deleted)
	require.Nil(t, gone.Prev)
	gone, err = c.Delete(ctx, key)
	require.NoError(t, err)
	require.Zero(t, gone.Deleted)
	_, err = c.Get(ctx, key)
	e := requireError(t, err, client.NotApplied, client.ErrNotFound)
	require.Equal(t, 404, e.Status)
	require.NotEmpty(t, e.Node)

	old, err := c.Get(ctx, key, client.AtRevision(first.Revision))
	require.NoError(t, err)
	require.Equal(t, []byte{}, old.Value)
	_, err = c.Get(ctx, key, client.AtRevision(math.MaxInt32))
	require.GreaterOrEqual(t, requireError(t, err, client.NotApplied, client.ErrFutureRevision).Revision, gone.Revision)
}

func TestAdd(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	sum, err := c.Add(ctx, "counter", math.MaxInt64)
	require.NoError(t, err)
	require.EqualValues(t, math.MaxInt64, sum)
	_, err = c.Add(ctx, "counter", 1)
	requireError(t, err, client.NotApplied, client.ErrOverflow)
	sum, err = c.Add(ctx, "counter", math.MinInt64)
	require.NoError(t, err)
	require.EqualValues(t, -1, sum)
	_, err = c.Put(ctx, "no counter", []byte("x"))
	require.NoError(t, err)
	_, err = c.Add(ctx, "no counter", 1)
	requireError(t, err, client.NotApplied, client.ErrNotANumber)
}

func TestListPagesAtOneRevision(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	const n = 1300 // more than the first page has
	for at := 0; at < n; at += 100 {
		txn := c.Txn()
		for i := at; i < at+100; i++ {
			txn.Then(client.OpPut(fmt.Sprintf("list/%04d", i), []byte{byte(i)}))
		}
		_, err := txn.Commit(ctx)
		require.NoError(t, err)
	}
	count := 0
	for it, err := range c.List(ctx, client.Prefix("list/")) {
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("list/%04d", count), it.Key)
		require.Equal(t, []byte{byte(count)}, it.Value)
		if count == 10 {
			// Pages to come must not see this.
			_, err := c.DeleteRange(ctx, client.Prefix("list/12"))
			require.NoError(t, err)
		}
		count++
	}
	require.Equal(t, n, count)

	var keys []string
	for it, err := range c.List(ctx, client.From("list/"), client.Reverse(), client.KeysOnly(), client.Limit(1100)) {
		require.NoError(t, err)
		require.Nil(t, it.Value)
		keys = append(keys, it.Key)
	}
	require.Len(t, keys, 1100)
	total, err := c.Count(ctx, client.Between("list/", "list0"))
	require.NoError(t, err)
	require.EqualValues(t, n-100, total)

	for _, err := range c.List(ctx, client.Prefix("list/")) {
		require.NoError(t, err)
		break // and nothing is left behind: see goleak
	}
	for _, err := range c.List(ctx, client.KeyRange{}) {
		requireError(t, err, client.NotApplied, client.ErrBadRequest)
	}
	for _, err := range c.List(ctx, client.All(), client.Limit(0)) {
		requireError(t, err, client.NotApplied, client.ErrBadRequest)
	}
}

// Items are their caller's: whatever is listed later, over the same connections and by
// whomever, those that are kept stay as they were, and what is done to one is seen in no
// other.
func TestListedItemsAreTheirCallers(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	for at := 0; at < 4; at++ {
		txn := c.Txn()
		for i := range 100 {
			txn.Then(client.OpPut(fmt.Sprintf("kept/%d/%03d", at, i), bytes.Repeat([]byte{byte('a' + at)}, 300)))
		}
		_, err := txn.Commit(ctx)
		require.NoError(t, err)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			at := w % 4
			var kept []client.Item
			for range 20 {
				for it, err := range c.List(ctx, client.Prefix(fmt.Sprintf("kept/%d/", at))) {
					if !assert.NoError(t, err) {
						return
					}
					kept = append(kept, it)
				}
			}
			want := bytes.Repeat([]byte{byte('a' + at)}, 300)
			for i, it := range kept {
				if !assert.Equal(t, fmt.Sprintf("kept/%d/%03d", at, i%100), it.Key) || !assert.Equal(t, want, it.Value) {
					return
				}
				clear(it.Value)
				_ = append(it.Value, "what would be the next item"...)
			}
		})
	}
	wg.Wait()
}

func TestTxn(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	res, err := c.Txn().
		If(client.Absent("txn/a"), client.ModRevisionOf("txn/").OfPrefix().Less(1)).
		Then(
			client.OpPut("txn/a", []byte("1")),
			client.OpAdd("txn/n", 5),
			client.OpGet("txn/a"),
			client.OpGet("txn/missing"),
			client.OpCount(client.Prefix("txn/")),
			client.OpRange(client.Prefix("txn/"), client.Limit(1), client.KeysOnly()),
		).Commit(ctx)
	require.NoError(t, err)
	require.True(t, res.Succeeded)
	require.Equal(t, client.PutResult{Revision: res.Revision, Version: 1, Created: true}, *res.Results[0].Put)
	require.EqualValues(t, 5, res.Results[1].Add.Value)
	require.True(t, res.Results[2].Get.Found)
	require.False(t, res.Results[3].Get.Found)
	require.EqualValues(t, 2, res.Results[4].Range.Count)
	require.True(t, res.Results[5].Range.More)
	require.Equal(t, "txn/a", res.Results[5].Range.Items[0].Key)

	res, err = c.Txn().
		If(client.Absent("txn/a")).
		Then(client.OpPut("txn/a", []byte("2"))).
		Else(client.OpDeleteRange(client.Prefix("txn/"), client.WithPrev())).
		Commit(ctx)
	require.NoError(t, err)
	require.False(t, res.Succeeded)
	require.EqualValues(t, 2, res.Results[0].Delete.Deleted)
	require.Len(t, res.Results[0].Delete.Prev, 2)

	read, err := c.Txn().Then(client.OpGet("txn/a")).Commit(ctx, client.MinRevision(res.Revision))
	require.NoError(t, err)
	require.False(t, read.Results[0].Get.Found)

	_, err = c.Txn().Then(client.OpAdd("txn/n", 1), client.OpPut("txn/n", nil)).Commit(ctx)
	require.Equal(t, "duplicate_key", requireError(t, err, client.NotApplied, client.ErrBadRequest).Code)
	_, err = c.Txn().Then(client.OpPut("txn/x", []byte("x"))).Commit(ctx, client.Stale())
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	_, err = c.Txn().Then(client.Op{}).Commit(ctx)
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	_, err = c.Txn().If(client.Compare{}).Commit(ctx)
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
}

// A txn that Go counts as a read and the server as a write, or the other way
// round, would be retried wrongly.
func TestTxnOfComparisonsAlone(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	res, err := c.Txn().If(client.Exists("no such key")).Commit(ctx, client.MaxStaleness(time.Second), client.MinRevision(1))
	require.NoError(t, err)
	require.False(t, res.Succeeded)
}

func TestFreshness(t *testing.T) {
	urls, ctx := endpoints(t), within(t)
	c, other := open(t, client.Config{Endpoints: urls}), open(t, client.Config{Endpoints: urls})
	for i := range 20 {
		value := fmt.Append(nil, i)
		put, err := c.Put(ctx, "fresh", value)
		require.NoError(t, err)
		require.Equal(t, put.Revision, c.Revision())
		for _, f := range []client.Freshness{
			client.Linearizable(), client.MinRevision(c.Revision()), client.MaxStaleness(time.Nanosecond),
		} {
			got, err := other.Get(ctx, "fresh", f)
			require.NoError(t, err)
			require.Equal(t, value, got.Value)
		}
		got, err := other.Get(ctx, "fresh", client.Stale())
		require.NoError(t, err)
		require.Equal(t, value, got.Value, "it has seen that before")
		if _, err = other.Get(ctx, "fresh", client.AnyState()); err != nil {
			require.ErrorIs(t, err, client.ErrNotFound) // a state before the first of them
		}
	}
	_, err := c.Get(ctx, "fresh", client.AnyState(), client.MinRevision(1))
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	_, err = c.Get(ctx, "fresh", client.Linearizable(), client.MaxStaleness(1))
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
}

func TestWhatIsTooLarge(t *testing.T) {
	urls, ctx := endpoints(t), within(t)
	c := open(t, client.Config{Endpoints: urls})
	_, err := c.Put(ctx, "large", bytes.Repeat([]byte("x"), 1<<20))
	require.NoError(t, err)
	for range 5 {
		_, err = c.Put(ctx, "large", bytes.Repeat([]byte("x"), 16<<20))
		require.EqualValues(t, 1<<20, requireError(t, err, client.NotApplied, client.ErrTooLarge).Limit)
	}
	_, err = c.Put(ctx, strings.Repeat("k", 4097), nil)
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	_, err = c.Put(ctx, "", nil)
	requireError(t, err, client.NotApplied, client.ErrBadRequest)

	small := open(t, client.Config{Endpoints: urls, MaxResponseBytes: 1000})
	_, err = small.Get(ctx, "large")
	require.ErrorContains(t, err, "MaxResponseBytes")
	requireError(t, err, client.NotApplied)
	_, err = small.Put(ctx, "large", nil, client.WithPrev())
	requireError(t, err, client.Unknown) // it was, but who knows
}

func TestDeletingEverythingIsSaidInSoManyWords(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	for _, keys := range []client.KeyRange{{}, client.Prefix(""), client.From(""), client.Between("a", "")} {
		_, err := c.DeleteRange(ctx, keys)
		requireError(t, err, client.NotApplied, client.ErrBadRequest)
		_, err = c.Txn().Then(client.OpDeleteRange(keys)).Commit(ctx)
		requireError(t, err, client.NotApplied, client.ErrBadRequest)
	}
}

func TestClusterAndStatus(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	_, err := c.Put(ctx, "status", nil)
	require.NoError(t, err)
	cl, err := c.Cluster(ctx)
	require.NoError(t, err)
	require.Len(t, cl.Members, 3)
	led := 0
	for _, m := range cl.Members {
		st, err := c.Status(ctx, m.API)
		require.NoError(t, err)
		require.Equal(t, m.ID, st.Node)
		require.Equal(t, cl.ID, st.Cluster)
		require.Positive(t, st.Uptime)
		if m.Leader {
			led++
			require.Equal(t, "leader", st.Role)
			require.Equal(t, cl.Leader, m.ID)
		}
	}
	require.Equal(t, 1, led)
	_, err = c.Status(ctx, "http://127.0.0.1:1")
	requireError(t, err, client.NotApplied, client.ErrUnavailable)
	_, err = c.Status(ctx, "ftp://127.0.0.1")
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
}

// inProcess calls a handler in place of a network.
type inProcess struct{ http.Handler }

func (h inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

// The client runs over a node in its own process, without a connection.
func TestOverAnEmbeddedNode(t *testing.T) {
	endpoints(t)
	cluster, err := shared()
	require.NoError(t, err)
	c, ctx := open(t, client.Config{Transport: inProcess{cluster.Handler(0)}}), within(t)
	_, err = c.Put(ctx, "a//b", []byte("v"))
	require.NoError(t, err)
	it, err := c.Get(ctx, "a//b")
	require.NoError(t, err)
	require.Equal(t, "v", string(it.Value))
	res, err := c.Txn().Then(client.OpRange(client.All())).Commit(ctx)
	require.NoError(t, err)
	require.Equal(t, []client.Item{it}, res.Results[0].Range.Items)
}
