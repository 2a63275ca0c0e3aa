package client

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"trivet/trivetpb"
)

// Cache is a copy of a range of keys in the memory of this process, which follows the
// cluster. It is made by Client.Cache. Its methods may be called by any number of
// goroutines; its reads take no lock.
//
// What a read promises is MaxStaleness of the bound that the cache was made with:
//
//   - It sees every write to the range that was acknowledged, to anybody, more than the
//     bound before the read began.
//   - It sees every write of this Client to the range that was acknowledged before the
//     read began, however short ago.
//   - It never goes back: a read that begins after another has returned sees at least
//     what that one saw.
//   - All that one read sees is of one revision, so a Range sees each Txn whole.
//
// Where the copy cannot be proven to be as good as that, the read asks the cluster for
// what the copy lacks, and waits for the answer; where there is none, it fails. It
// never answers from a copy that may be too old.
type Cache struct {
	c      *Client
	keys   KeyRange
	start  string
	end    string // exclusive; empty for none
	maxAge time.Duration

	// state is what reads read. floor is the revision that it must have at least: that
	// of the last write to the range by this client.
	state atomic.Pointer[cacheState]
	floor atomic.Uint64
	// used says that there was a read since the last catching up.
	used atomic.Bool

	// ask has the cache catch up at once; asked for twice is once.
	ask    chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	ended  sync.WaitGroup

	// mu is of those who change the state. changed is closed when it has, or when an
	// attempt to has failed, and failure says why the last one did.
	mu      sync.Mutex
	changed chan struct{}
	failure error
}

// cacheState is a state of the range. It does not change.
type cacheState struct {
	items    *index
	revision uint64
	// confirmed is when the cluster was asked, at the latest, for a state that this one
	// is no older than: since the start of the process. See cachesync.go.
	confirmed time.Duration
}

// CacheOption is WithMaxAge.
type CacheOption interface{ toCache(*params) }

// AgeOption goes with Cache.
type AgeOption struct{ set func(*params) }

func (o AgeOption) toCache(p *params) { o.set(p) }

// WithMaxAge is how stale a read of a Cache may be, 10 ms at least. The default is
// DefaultMaxAge. While a cache is read the cluster is asked three times in that time what the
// cache lacks, which costs it about as much as a linearizable read; one that is not read
// costs nothing but its watch.
func WithMaxAge(d time.Duration) AgeOption {
	return AgeOption{func(p *params) { p.maxAge = d }}
}

// DefaultMaxAge is the bound of a Cache without WithMaxAge.
const DefaultMaxAge = 2 * time.Second

const minMaxAge = 10 * time.Millisecond

// Cache copies a range of keys into memory and keeps the copy up to date, by a watch.
// It returns once the copy is complete, or fails when ctx ends, or after
// Config.Timeout where ctx has no deadline; ctx has no part in what comes then. The
// cache lasts until its Close, or the Client's. It survives whatever a watch survives,
// and a history that is gone as well: then the range is copied anew.
//
// All of the range is in memory, with some hundred bytes an item beside keys and
// values.
func (c *Client) Cache(ctx context.Context, keys KeyRange, opts ...CacheOption) (*Cache, error) {
	p := params{maxAge: DefaultMaxAge}
	for _, o := range opts {
		o.toCache(&p)
	}
	op := "cache " + keys.String()
	if e := keys.check(op, false); e != nil {
		return nil, e
	}
	if p.maxAge < minMaxAge {
		return nil, refusal(op, trivetpb.Code_BAD_REQUEST, "WithMaxAge is %v, the least is %v", p.maxAge, minMaxAge)
	}
	ctx, end, err := c.begin(ctx)
	if err != nil {
		return nil, (&request{op: op}).ended(err, &course{})
	}
	defer end()
	k := &Cache{c: c, keys: keys, maxAge: p.maxAge, ask: make(chan struct{}, 1), changed: make(chan struct{})}
	bounds := keys.proto()
	k.start, k.end = string(bounds.Start), string(bounds.End)
	k.ctx, k.cancel = context.WithCancel(c.ctx)
	c.caches.add(k)
	synced := make(chan error, 1)
	for _, f := range []func(){func() { k.follow(synced) }, k.keepFresh} {
		k.ended.Add(1)
		err := c.background(func() {
			defer k.ended.Done()
			f()
		})
		if err != nil {
			k.ended.Done()
			k.Close()
			return nil, (&request{op: op}).ended(err, &course{})
		}
	}
	select {
	case err = <-synced:
	case <-ctx.Done():
		err = (&request{op: op}).ended(context.Cause(ctx), k.course())
	}
	if err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// Close ends the cache, and gives back what it holds. Reads then fail with ErrClosed.
// It does no harm twice.
func (k *Cache) Close() {
	k.cancel()
	k.c.caches.remove(k)
	k.ended.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state.Store(nil)
	k.tell(nil)
}

// Get returns the item at a key of the range. The error is ErrNotFound where there is
// none. Where the cluster is to be asked it is ErrUnavailable where that does not
// answer until ctx ends or, where that has no deadline, within Config.Timeout; and what
// is wrong with asking (ErrDenied).
func (k *Cache) Get(ctx context.Context, key string) (Item, error) {
	if key < k.start || (k.end != "" && key >= k.end) {
		return Item{}, refusal("get "+shown(key), trivetpb.Code_BAD_REQUEST, "the key is not in the cache of %s", k.keys)
	}
	s := k.fresh()
	if s == nil {
		var err error
		if s, err = k.await(ctx, func() string { return "get " + shown(key) }); err != nil {
			return Item{}, err
		}
	}
	it := s.items.get(key)
	if it == nil {
		return Item{}, (&request{op: "get " + shown(key)}).errorOfProblem(&trivetpb.Problem{Code: trivetpb.Code_KEY_NOT_FOUND}, "")
	}
	return copyOf(it), nil
}

// Range returns the items of a range within the cache's, in the order of their keys,
// all as they were at one revision. A failure, as of Get, comes as the only pair.
func (k *Cache) Range(ctx context.Context, keys KeyRange) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		op := func() string { return "list " + keys.String() }
		if e := keys.check("list", false); e != nil {
			e.op = op()
			yield(Item{}, e)
			return
		}
		start, end := keys.bounds()
		if start < k.start || (k.end != "" && (end == "" || end > k.end)) {
			yield(Item{}, refusal(op(), trivetpb.Code_BAD_REQUEST, "the range is not within the cache of %s", k.keys))
			return
		}
		s := k.fresh()
		if s == nil {
			var err error
			if s, err = k.await(ctx, op); err != nil {
				yield(Item{}, err)
				return
			}
		}
		for it := range s.items.between(start, end) {
			if !yield(copyOf(it), nil) {
				return
			}
		}
	}
}

// copyOf is an item whose value is the caller's.
func copyOf(it *Item) Item {
	c := *it
	c.Value = slices.Clone(it.Value)
	return c
}

// bounds are the first key and the one behind the last, which is empty for none.
func (r KeyRange) bounds() (start, end string) {
	if r.kind == rangePrefix {
		p := r.proto()
		return r.start, string(p.End)
	}
	return r.start, r.end
}

// Age is a proven upper bound of how stale the copy is now: every write to the range
// that was acknowledged longer ago than that is in it. It grows while nobody reads, and
// while the cluster cannot be asked; a read that finds it above the bound of the cache
// asks.
//
// It is measured on this machine's monotonic clock, from before the cluster was asked,
// so that neither another clock nor the time that an answer took is part of it. The
// time that the whole machine was suspended is not counted where its clock stands still
// then, as on Linux.
func (k *Cache) Age() time.Duration {
	s := k.state.Load()
	if s == nil {
		return time.Since(processStart)
	}
	return time.Since(processStart) - s.confirmed
}

// Revision is that of the copy: it is what the range was then. 0 after Close.
func (k *Cache) Revision() uint64 {
	if s := k.state.Load(); s != nil {
		return s.revision
	}
	return 0
}

// Len is how many items the copy has.
func (k *Cache) Len() int {
	if s := k.state.Load(); s != nil {
		return s.items.count
	}
	return 0
}

// fresh returns the state if it may be read, else nil.
//
// The state is loaded before the clock is read: that the cluster was asked for it less
// than the bound before then, and so before the read began, is what the read promises.
func (k *Cache) fresh() *cacheState {
	if !k.used.Load() {
		k.used.Store(true)
	}
	floor := k.floor.Load()
	s := k.state.Load()
	if s == nil || s.revision < floor || time.Since(processStart)-s.confirmed > k.maxAge {
		return nil
	}
	return s
}

// await has the cache catch up until its state may be read.
func (k *Cache) await(ctx context.Context, op func() string) (*cacheState, error) {
	ctx, end, err := k.c.begin(ctx)
	if err != nil {
		return nil, (&request{op: op()}).ended(err, &course{})
	}
	defer end()
	for first := true; ; first = false {
		k.mu.Lock()
		changed, failure := k.changed, k.failure
		k.mu.Unlock()
		if s := k.fresh(); s != nil {
			return s, nil
		}
		r := &request{op: op()}
		switch {
		case k.ctx.Err() != nil:
			return nil, r.ended(ErrClosed, &course{})
		case !first && failure != nil && !passes(failure):
			e := r.failed(true)
			e.Code, e.Detail, e.causes = codeUnavailable, "the cluster refuses to be asked", []error{failure}
			return nil, e
		}
		select {
		case k.ask <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-k.ctx.Done():
		case <-ctx.Done():
			return nil, r.ended(context.Cause(ctx), k.course())
		}
	}
}

// course is what catching up came to, for an error.
func (k *Cache) course() *course {
	k.mu.Lock()
	defer k.mu.Unlock()
	var past course
	if e := (*Error)(nil); errors.As(k.failure, &e) {
		past.add(&request{}, e)
	}
	return &past
}

// passes says that a failure may be over soon.
func passes(err error) bool { return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrCompacted) }

// caches are those of a client.
type caches struct {
	count atomic.Int32
	mu    sync.Mutex
	list  []*Cache
}

func (l *caches) add(k *Cache) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, k)
	l.count.Store(int32(len(l.list)))
}

func (l *caches) remove(k *Cache) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = slices.DeleteFunc(l.list, func(other *Cache) bool { return other == k })
	l.count.Store(int32(len(l.list)))
}

// wrote notes that a write was acknowledged at a revision, before its caller learns of
// it: what begins then finds it in the caches. An empty key stands for any.
func (l *caches) wrote(key string, revision uint64) {
	if l.count.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.list {
		if key != "" && (key < k.start || (k.end != "" && key >= k.end)) {
			continue
		}
		for {
			old := k.floor.Load()
			if old >= revision || k.floor.CompareAndSwap(old, revision) {
				break
			}
		}
	}
}

// ended notes a call of a batch that has its result.
func (l *caches) ended(a *call) {
	if l.count.Load() == 0 || !a.write || a.err != nil || a.result == nil {
		return
	}
	key := ""
	switch a.kind {
	case putCall, deleteCall, addCall:
		key = a.key
	}
	l.wrote(key, a.result.Revision)
}
