package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"trivet/client"
)

// limits are how much of an item a cart may hold. They are looked at with every change
// of a cart and hardly ever changed, so each instance has them in memory.
//
// A limit that is changed through this instance holds here at once; through another, it
// does within limitsAge. While the cluster is away a limit that is older than that is
// not gone by: the change fails, which without the cluster it would in any case.
type limits struct {
	store *client.Client
	// opening holds the one who opens the cache; who comes meanwhile waits, or goes
	// when its context ends.
	opening chan struct{}
	cache   *client.Cache // once opening was free and it is not nil
}

const limitsAge = client.DefaultMaxAge

func newLimits(store *client.Client) *limits {
	return &limits{store: store, opening: make(chan struct{}, 1)}
}

// of returns how much of the item a cart may hold.
func (l *limits) of(ctx context.Context, item string) (int, error) {
	cache, err := l.open(ctx)
	if err != nil {
		return 0, err
	}
	it, err := cache.Get(ctx, limitPrefix+item)
	if errors.Is(err, client.ErrNotFound) {
		return maxQuantity, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(it.Value))
}

// open returns the cache, which the first request that needs it opens: the service
// starts whether the cluster is up or not. It is closed with the client.
func (l *limits) open(ctx context.Context) (*client.Cache, error) {
	select {
	case l.opening <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-l.opening }()
	if l.cache != nil {
		return l.cache, nil
	}
	cache, err := l.store.Cache(ctx, client.Prefix(limitPrefix), client.WithMaxAge(limitsAge))
	if err == nil {
		l.cache = cache
	}
	return cache, err
}

// setLimit sets how much of the item a cart may hold: ?most=5.
func (s *service) setLimit(w http.ResponseWriter, r *http.Request) {
	most, err := strconv.Atoi(r.URL.Query().Get("most"))
	if err != nil || most < 0 || most > maxQuantity {
		fail(w, http.StatusBadRequest, fmt.Sprintf("say how many at most, from 0 to %d: ?most=5", maxQuantity))
		return
	}
	_, err = s.store.Put(r.Context(), limitPrefix+r.PathValue("item"), strconv.AppendInt(nil, int64(most), 10))
	reply(w, map[string]int{"most": most}, err)
}
