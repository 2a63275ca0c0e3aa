package httpapi

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"trivet/raftnode"
	"trivet/trivetpb"
)

// page is a page of a range as callers read it.
type page struct {
	Revision uint64
	Items    []struct {
		Key, Key64, Value, Value64 string
		CreateRevision             uint64 `json:"create_revision"`
		ModRevision                uint64 `json:"mod_revision"`
		Version, Lease             uint64
	}
	Prefixes   []string
	Prefixes64 []string
	Count      uint64
	Next       string
}

// list gets one page.
func (d *door) list(query string) page {
	d.t.Helper()
	r := d.do("GET", "/v1/kv?"+query, "")
	require.Equal(d.t, 200, r.status, "%s: %s", query, r.body)
	var p page
	require.NoError(d.t, json.Unmarshal([]byte(r.body), &p))
	require.Equal(d.t, r.header.Get("Trivet-Revision"), strconv.FormatUint(p.Revision, 10))
	return p
}

// names are the keys of the items, then the prefixes in brackets.
func (p page) names() []string {
	names := []string{}
	for _, it := range p.Items {
		key := it.Key
		if it.Key64 != "" {
			b, _ := base64.StdEncoding.DecodeString(it.Key64)
			key = string(b)
		}
		names = append(names, key)
	}
	for _, prefix := range p.Prefixes {
		names = append(names, "["+prefix+"]")
	}
	for _, coded := range p.Prefixes64 {
		b, _ := base64.StdEncoding.DecodeString(coded)
		names = append(names, "["+string(b)+"]")
	}
	return names
}

func TestRanges(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	d.node.put(t, "a", "1", "b", "2", "b/1", "3", "b/2", "4", "b/2/x", "5", "c", "6", "c/", "7", "\xff", "8", "\xff/1", "9")
	for _, row := range []struct {
		name, query string
		want        []string
		count       uint64
	}{
		{"nothing asked is everything", "", []string{"a", "b", "b/1", "b/2", "b/2/x", "c", "c/", "\xff", "\xff/1"}, 9},
		{"an empty prefix is everything", "prefix=", []string{"a", "b", "b/1", "b/2", "b/2/x", "c", "c/", "\xff", "\xff/1"}, 9},
		{"a prefix", "prefix=b", []string{"b", "b/1", "b/2", "b/2/x"}, 4},
		{"a prefix of 0xff has no end", "prefix64=" + url.QueryEscape("/w=="), []string{"\xff", "\xff/1"}, 2},
		{"end is exclusive", "start=b&end=c", []string{"b", "b/1", "b/2", "b/2/x"}, 4},
		{"from a key on", "start=c/", []string{"c/", "\xff", "\xff/1"}, 3},
		{"up to a key", "end=b/1", []string{"a", "b"}, 2},
		{"bounds as base64", "start64=Yg==&end64=Yy8=", []string{"b", "b/1", "b/2", "b/2/x", "c"}, 5},
		{"backwards", "prefix=b&reverse=true", []string{"b/2/x", "b/2", "b/1", "b"}, 4},
		{"an empty range", "start=c&end=b", []string{}, 0},
		{"an empty range backwards", "start=c&end=b&reverse=true", []string{}, 0},
		{"only the count", "prefix=b&count_only=true", []string{}, 4},
		{"the limit does not change the count", "limit=2", []string{"a", "b"}, 9},
		{"folders", "delimiter=/", []string{"a", "b", "c", "\xff", "[b/]", "[c/]", "[\xff/]"}, 9},
		{"folders behind a prefix", "prefix=b/&delimiter=/", []string{"b/1", "b/2", "[b/2/]"}, 3},
		{"folders backwards", "delimiter=/&reverse=true", []string{"\xff", "c", "b", "a", "[c/]", "[b/]", "[\xff/]"}, 9},
		{"the limit bounds folders too", "delimiter=/&limit=3", []string{"a", "b", "[b/]"}, 9},
		{"a delimiter of several bytes", "prefix=b&delimiter=/2/", []string{"b", "b/1", "b/2", "[b/2/]"}, 4},
		{"a folder that the range begins in", "start=b/2&delimiter=/", []string{"c", "\xff", "[b/]", "[c/]", "[\xff/]"}, 6},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := d.list(row.query)
			require.Equal(t, row.want, p.names())
			require.Equal(t, row.count, p.Count)
			require.EqualValues(t, 10, p.Revision)
			require.Equal(t, strings.Contains(row.query, "limit="), p.Next != "")
		})
	}
}

func TestRangeBodies(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	require.Equal(t, `{"revision":1,"items":[],"count":0}`+"\n", d.do("GET", "/v1/kv", "").body)
	d.node.put(t, "a", "1", "b/c", "2")
	require.Equal(t, `{"revision":3,"items":[{"key":"a","value":"1","create_revision":2,"mod_revision":2,"version":1,"lease":0}],"prefixes":["b/"],"count":2}`+"\n",
		d.do("GET", "/v1/kv?delimiter=/", "").body)
	require.Equal(t, `{"revision":3,"items":[{"key":"a","create_revision":2,"mod_revision":2,"version":1,"lease":0}],"count":1}`+"\n",
		d.do("GET", "/v1/kv?prefix=a&keys_only=true", "").body)
	r := d.do("HEAD", "/v1/kv", "")
	require.Equal(t, 200, r.status)
	require.Equal(t, "Accept", r.header.Get("Vary"))
}

func TestRangeQueriesThatAreRefused(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	d.node.put(t, "a", "1", "b", "2", "c", "3")
	next := d.list("limit=1").Next
	for _, row := range []struct {
		query string
		code  trivetpb.Code
	}{
		{"prefix=a&start=b", trivetpb.Code_BAD_REQUEST},
		{"prefix=a&end64=Yg==", trivetpb.Code_BAD_REQUEST},
		{"prefix=a&prefix64=YQ==", trivetpb.Code_BAD_REQUEST},
		{"prefix64=YQ", trivetpb.Code_BAD_REQUEST},
		{"prefix64=%0AYQ==", trivetpb.Code_BAD_REQUEST},
		{"prefix64=YR==", trivetpb.Code_BAD_REQUEST},
		{"limit=0", trivetpb.Code_BAD_REQUEST},
		{"limit=10001", trivetpb.Code_BAD_REQUEST},
		{"limit=-1", trivetpb.Code_BAD_REQUEST},
		{"limit=1e3", trivetpb.Code_BAD_REQUEST},
		{"delimiter=", trivetpb.Code_BAD_REQUEST},
		{"keys_only=1", trivetpb.Code_BAD_REQUEST},
		{"count_only=true&limit=5", trivetpb.Code_BAD_REQUEST},
		{"count_only=true&delimiter=/", trivetpb.Code_BAD_REQUEST},
		{"cursor=", trivetpb.Code_BAD_REQUEST},
		{"cursor=AAAA", trivetpb.Code_BAD_REQUEST},
		{"cursor=" + next[1:], trivetpb.Code_BAD_REQUEST},
		{"cursor=" + next + "AA", trivetpb.Code_BAD_REQUEST},
		{"cursor=" + strings.Repeat("A", 9000), trivetpb.Code_BAD_REQUEST},
		{"prefix=b&cursor=" + next, trivetpb.Code_BAD_REQUEST},
		{"reverse=true&cursor=" + next, trivetpb.Code_BAD_REQUEST},
		{"delimiter=/&cursor=" + next, trivetpb.Code_BAD_REQUEST},
		{"revision=2&cursor=" + next, trivetpb.Code_BAD_REQUEST},
		{"count_only=true&cursor=" + next, trivetpb.Code_BAD_REQUEST},
		{"revision=9", trivetpb.Code_FUTURE_REVISION},
		{"prefix=" + strings.Repeat("a", maxKeyBytes+2), trivetpb.Code_BAD_KEY},
	} {
		d.do("GET", "/v1/kv?"+row.query, "").requireProblem(t, row.code)
	}
	d.do("GET", "/v1/kv?cursor="+next, "", "Accept: application/x-ndjson").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	d.do("GET", "/v1/kv?count_only=true", "", "Accept: application/x-ndjson").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Equal(t, []string{"b", "c"}, d.list("revision=4&cursor="+next).names())
}

// Pages that are put together are the range as it was when the first was asked,
// whatever is written in between, in either direction and with folders.
func TestPagesAddUpToTheRange(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	rapid.Check(t, func(rt *rapid.T) {
		keys := rapid.SliceOfN(rapid.StringMatching(`[ab/\x{ff}]{1,4}`), 1, 20).Draw(rt, "keys")
		for _, key := range keys {
			d.node.put(t, key, "v")
		}
		query := "prefix=" + url.QueryEscape(rapid.SampledFrom([]string{"", "a", "a/", "b/"}).Draw(rt, "prefix"))
		if rapid.Bool().Draw(rt, "reverse") {
			query += "&reverse=true"
		}
		if rapid.Bool().Draw(rt, "folders") {
			query += "&delimiter=/"
		}
		limit := rapid.IntRange(1, 5).Draw(rt, "limit")
		whole := d.list(query)
		var got page
		for cursor := ""; ; {
			p := d.list(query + fmt.Sprintf("&limit=%d", limit) + cursor)
			require.LessOrEqual(t, len(p.names()), limit)
			require.Equal(t, whole.Revision, p.Revision)
			require.Equal(t, whole.Count, p.Count)
			got.Items, got.Prefixes = append(got.Items, p.Items...), append(got.Prefixes, p.Prefixes...)
			if p.Next == "" {
				break
			}
			require.Len(t, p.names(), limit, "a page with a next one is full")
			cursor = "&cursor=" + p.Next
			d.node.put(t, "a/between", "v", "zz", "v")
		}
		require.Equal(t, whole.names(), got.names())
		d.do("DELETE", "/v1/kv?all=true", "")
	})
}

// A page after the first asks no leader: its revision holds what it holds. It
// only waits for the node to have reached it.
func TestACursorOnlyWaitsForItsRevision(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	d.node.put(t, "a", "1", "b", "2")
	next := d.list("limit=1").Next
	for query, want := range map[string]raftnode.ReadOptions{
		"":                                      {Consistency: raftnode.Session, MinRevision: 3},
		"&consistency=stale":                    {Consistency: raftnode.Session, MinRevision: 3},
		"&consistency=linearizable":             {Consistency: raftnode.Linearizable, MinRevision: 3},
		"&consistency=bounded&max_staleness=1s": {Consistency: raftnode.Bounded, MaxStaleness: 1e9, MinRevision: 3},
		"&consistency=session&min_revision=9":   {Consistency: raftnode.Session, MinRevision: 9},
	} {
		d.list("limit=1&cursor=" + next + query)
		require.Equal(t, want, d.node.lastRead(), query)
	}
}

func TestCompactedRanges(t *testing.T) {
	node := newSoloNode()
	d := openDoor(t, node, Config{})
	d.node.put(t, "a", "1", "b", "2")
	next := d.list("limit=1").Next
	_, err := node.apply(nil, &trivetpb.Settings{HistoryRevisions: 1})
	require.NoError(t, err)
	for range 5 {
		d.node.put(t, "a", "x")
	}
	for _, path := range []string{"/v1/kv?revision=2", "/v1/kv/a?revision=2", "/v1/kv?limit=1&cursor=" + next} {
		p := d.do("GET", path, "").requireProblem(t, trivetpb.Code_COMPACTED)
		require.Equal(t, node.data.Stats().CompactRevision, *p.CompactRevision)
		require.Equal(t, node.data.Stats().Revision, *p.Revision)
	}
}

// A page ends where its bytes do, however few items that is.
func TestPagesEndAtTheirBytes(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	value := strings.Repeat("v", 1<<20)
	for i := range 6 {
		d.node.put(t, "k"+strconv.Itoa(i), value)
	}
	p := d.list("")
	require.Equal(t, []string{"k0", "k1", "k2", "k3"}, p.names())
	require.Equal(t, value, p.Items[3].Value)
	require.EqualValues(t, 6, p.Count)
	p = d.list("cursor=" + p.Next)
	require.Equal(t, []string{"k4", "k5"}, p.names())
	require.Empty(t, p.Next)
	require.Len(t, d.list("keys_only=true").names(), 6)
}

func TestDeleteRanges(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	d.node.put(t, "a", "1", "b/1", "2", "b/2", "3", "c", "4", "d", "5")
	for _, query := range []string{"", "?prefix=", "?start=", "?start=&end=", "?all=false", "?prefix64="} {
		d.do("DELETE", "/v1/kv"+query, "").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	}
	require.Equal(t, `{"deleted":2,"revision":7}`+"\n", d.do("DELETE", "/v1/kv?prefix=b/", "").body)
	require.Equal(t, `{"deleted":0,"revision":7}`+"\n", d.do("DELETE", "/v1/kv?prefix=b/", "").body)
	require.Equal(t, `{"deleted":1,"revision":8}`+"\n", d.do("DELETE", "/v1/kv?start=c&end=d", "").body)
	d.do("DELETE", "/v1/kv?prefix=a&prev=true", "").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Equal(t, `{"deleted":2,"revision":9}`+"\n", d.do("DELETE", "/v1/kv?all=true", "").body)
}

func TestStreams(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	ndjson := "Accept: application/x-ndjson"
	require.Equal(t, "", d.do("GET", "/v1/kv", "", ndjson).body)
	d.node.put(t, "a", "1", "b/1", "2", "c", "3")
	r := d.do("GET", "/v1/kv", "", ndjson)
	require.Equal(t, `{"key":"a","value":"1","create_revision":2,"mod_revision":2,"version":1,"lease":0}
{"key":"b/1","value":"2","create_revision":3,"mod_revision":3,"version":1,"lease":0}
{"key":"c","value":"3","create_revision":4,"mod_revision":4,"version":1,"lease":0}
`, r.body)
	require.Equal(t, ndjsonType, r.header.Get("Content-Type"))
	require.Equal(t, "4", r.header.Get("Trivet-Revision"))
	require.Equal(t, `{"key":"c","create_revision":4,"mod_revision":4,"version":1,"lease":0}
{"prefix":"b/"}
`, d.do("GET", "/v1/kv?reverse=true&limit=2&delimiter=/&keys_only=true", "", ndjson).body)
	require.Equal(t, 200, d.do("HEAD", "/v1/kv", "", ndjson).status)

	// More than any page: all of it, at one revision, while writes go on.
	want := []string{"a", "b/1", "c"}
	for i := range 12_000 {
		want = append(want, fmt.Sprintf("k%05d", i))
		d.node.put(t, want[len(want)-1], strings.Repeat("v", 50))
	}
	resp := d.open(ndjson)
	defer resp.Body.Close()
	var got []string
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if len(got) == 100 {
			d.node.put(t, "zz", "late")
		}
		var it struct{ Key string }
		require.NoError(t, json.Unmarshal(lines.Bytes(), &it))
		got = append(got, it.Key)
	}
	require.NoError(t, lines.Err())
	require.True(t, slices.Equal(want, got))
}

// open begins a stream of the whole key space.
func (d *door) open(header string) *http.Response {
	d.t.Helper()
	req, err := http.NewRequest("GET", "http://"+d.addr+"/v1/kv", nil)
	require.NoError(d.t, err)
	name, value, _ := strings.Cut(header, ": ")
	req.Header.Set(name, value)
	resp, err := d.client.Do(req)
	require.NoError(d.t, err)
	require.Equal(d.t, 200, resp.StatusCode)
	return resp
}

// lastLine reads a stream to its end.
func lastLine(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	last := ""
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		last = lines.Text()
	}
	require.NoError(t, lines.Err(), "the stream was cut")
	return last
}

// A stream that cannot go on says so in its last line.
func TestStreamsThatCannotGoOn(t *testing.T) {
	node := newSoloNode()
	for i := range 64 {
		node.put(t, "k"+strconv.Itoa(i), strings.Repeat("v", 1<<20))
	}
	for name, row := range map[string]struct {
		cfg  Config
		then func(*door)
		code string
	}{
		"the server stops": {Config{}, func(d *door) { d.srv.Drain(); d.srv.stopOnce.Do(func() { close(d.srv.stopping) }) }, `"code":"draining"`},
		"its time is over": {Config{StreamTimeout: 1}, func(*door) {}, `"code":"timeout"`},
	} {
		t.Run(name, func(t *testing.T) {
			d := openDoor(t, node, row.cfg)
			resp := d.open("Accept: application/x-ndjson")
			row.then(d)
			last := lastLine(t, resp)
			require.Contains(t, last, `{"type":"error","problem":{`)
			require.Contains(t, last, row.code)
			require.True(t, json.Valid([]byte(last)))
		})
	}
}

// A caller that does not read is cut off, and its view of the store is given back.
func TestStreamsToNobodyAreCut(t *testing.T) {
	node := newSoloNode()
	for i := range 64 {
		node.put(t, "k"+strconv.Itoa(i), strings.Repeat("v", 1<<20))
	}
	asked := make(chan struct{}, 1)
	node.onRead = func(context.Context, raftnode.ReadOptions) (raftnode.Proof, error) {
		asked <- struct{}{}
		return raftnode.Proof{}, nil
	}
	d := openDoor(t, node, Config{WriteTimeout: 1, BodyTimeout: 1})
	c := d.dial()
	c.send("GET /v1/kv HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\n\r\n")
	<-asked
	require.Eventually(t, func() bool { return d.srv.underWay.held.Load() == 0 && d.srv.conns.Load() == 0 }, waitAtMost, waitStep)
}

func TestCursorText(t *testing.T) {
	cur := cursor{revision: 7, count: 300, identity: 0xdeadbeef, position: []byte("k\x00")}
	text := cur.String()
	require.Equal(t, "AQesAt6tvu9rAECkhTg", text, "the format is fixed: cursors live across an upgrade")
	got, p := parseCursor(text)
	require.Nil(t, p)
	require.Equal(t, cur, got)
	for i := range text {
		changed := []byte(text)
		if changed[i]++; changed[i] == text[i] {
			continue
		}
		_, p := parseCursor(string(changed))
		require.NotNil(t, p, "byte %d", i)
	}
}
