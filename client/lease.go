package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"time"

	"trivet/trivetpb"
)

// Lease is what keys can be attached to (WithLease), to be deleted together when
// it ends: it is revoked, or its ttl is over with nobody keeping it alive. That
// is decided by the cluster, by a clock of its own, at one revision for all.
type Lease struct {
	ID  uint64
	TTL time.Duration
}

// LeaseInfo is a lease as it stood when it was read.
type LeaseInfo struct {
	Lease
	// Remaining is what is left of the ttl; 0 for a lease that is about to end.
	Remaining time.Duration
	// KeyCount is how many keys are attached to it.
	KeyCount uint64
	// Lock is the name of the lock that is held by it; empty for none.
	Lock string
	// Keys are the first of its keys, in byte order, 10,000 at most; MoreKeys says
	// that there are more. Leases leaves them out.
	Keys     []string
	MoreKeys bool
}

// LeaseGrant makes a lease. ttl is 1 s to 24 h, in whole milliseconds.
func (c *Client) LeaseGrant(ctx context.Context, ttl time.Duration, opts ...IdempotencyOption) (Lease, error) {
	const op = "grant a lease"
	r := &request{op: op, method: http.MethodPost, path: leasesPath, write: true, inSession: true, kind: otherCall, key: op}
	if e := firstOf(checkTTL(op, ttl), r.identify(opts)); e != nil {
		return Lease{}, e
	}
	r.contentType, r.body = jsonType, fmt.Appendf(nil, "{\"ttl\":%q}\n", ttl)
	var lease Lease
	r.decode = func(a *answer) (err error) {
		lease, err = leaseOf(a)
		return err
	}
	if err := c.do(ctx, r); err != nil {
		return Lease{}, err
	}
	return lease, nil
}

// LeaseKeepAlive starts the lease's ttl again, once; KeepAlive does so all the
// time. It is tried again after any failure. The error is ErrLeaseNotFound where
// the lease has ended.
func (c *Client) LeaseKeepAlive(ctx context.Context, id uint64) (Lease, error) {
	return c.leaseKeepAlive(ctx, id, 0)
}

func (c *Client) leaseKeepAlive(ctx context.Context, id uint64, patience time.Duration) (Lease, error) {
	op := "keep alive " + shownLease(id)
	var lease Lease
	r := &request{
		op: op, method: http.MethodPut, path: leasePath(id), write: true, harmless: true, patience: patience,
		decode: func(a *answer) (err error) {
			lease, err = leaseOf(a)
			return err
		},
	}
	if e := checkLeaseID(op, id); e != nil {
		return Lease{}, e
	}
	if err := c.do(ctx, r); err != nil {
		return Lease{}, err
	}
	return lease, nil
}

// LeaseRevoke ends a lease and deletes its keys, at one revision. The error is
// ErrLeaseNotFound where it has ended before.
func (c *Client) LeaseRevoke(ctx context.Context, id uint64, opts ...IdempotencyOption) (DeleteResult, error) {
	op := "revoke " + shownLease(id)
	r := &request{op: op, method: http.MethodDelete, path: leasePath(id), write: true, inSession: true, kind: otherCall, key: op}
	if e := firstOf(checkLeaseID(op, id), r.identify(opts)); e != nil {
		return DeleteResult{}, e
	}
	return c.deletion(ctx, r, true)
}

// LeaseInfo returns a lease with its keys. The error is ErrLeaseNotFound where
// there is no such lease.
func (c *Client) LeaseInfo(ctx context.Context, id uint64, opts ...Freshness) (LeaseInfo, error) {
	op := shownLease(id)
	p := freshnessParams(opts)
	r := &request{op: op, method: http.MethodGet, path: leasePath(id)}
	r.query.add("limit", strconv.Itoa(pageItems))
	if e := firstOf(checkLeaseID(op, id), p.addFreshness(op, c.Revision(), &r.query)); e != nil {
		return LeaseInfo{}, e
	}
	var info LeaseInfo
	r.decode = func(a *answer) (err error) {
		var doc leaseJSON
		if err = decodeJSON(a, &doc); err == nil {
			info, err = doc.info()
		}
		return err
	}
	if err := c.do(ctx, r); err != nil {
		return LeaseInfo{}, err
	}
	return info, nil
}

// Leases returns all leases by their ids. They are fetched in pages while the
// caller goes on, each as of its own time: a lease that is there all the while
// comes once. A failure comes as a last pair with the error, as with List.
func (c *Client) Leases(ctx context.Context, opts ...Freshness) iter.Seq2[LeaseInfo, error] {
	return func(yield func(LeaseInfo, error) bool) {
		if err := c.leases(ctx, opts, func(l LeaseInfo) bool { return yield(l, nil) }); err != nil {
			yield(LeaseInfo{}, err)
		}
	}
}

func (c *Client) leases(ctx context.Context, opts []Freshness, visit func(LeaseInfo) bool) error {
	const op = "leases"
	p := freshnessParams(opts)
	for cursor := ""; ; {
		r := &request{op: op, method: http.MethodGet, path: leasesPath}
		if e := p.addFreshness(op, c.Revision(), &r.query); e != nil {
			return e
		}
		if cursor != "" {
			r.query.add("cursor", cursor)
		}
		var doc struct {
			Leases *[]leaseJSON `json:"leases"`
			Next   string       `json:"next"`
		}
		var page []LeaseInfo
		r.decode = func(a *answer) error {
			doc.Leases, doc.Next, page = nil, "", nil
			if err := decodeJSON(a, &doc); err != nil {
				return err
			}
			if doc.Leases == nil {
				return missing("leases")
			}
			if doc.Next != "" && len(*doc.Leases) == 0 {
				return errors.New("the page is empty and not the last")
			}
			for i := range *doc.Leases {
				info, err := (*doc.Leases)[i].info()
				if err != nil {
					return err
				}
				page = append(page, info)
			}
			return nil
		}
		if err := c.do(ctx, r); err != nil {
			return err
		}
		for _, info := range page {
			if !visit(info) {
				return nil
			}
		}
		if doc.Next == "" {
			return nil
		}
		cursor = doc.Next
	}
}

func freshnessParams(opts []Freshness) (p params) {
	for _, o := range opts {
		o.set(&p)
	}
	return p
}

// identify makes the request one with an idempotency key, if there is one.
func (r *request) identify(opts []IdempotencyOption) *Error {
	var p params
	for _, o := range opts {
		o.set(&p)
	}
	return r.addPromises(&p)
}

func leasePath(id uint64) string { return leasesPath + "/" + strconv.FormatUint(id, 10) }

func shownLease(id uint64) string { return "lease " + strconv.FormatUint(id, 10) }

func checkLeaseID(op string, id uint64) *Error {
	if id == 0 {
		return refusal(op, trivetpb.Code_BAD_REQUEST, "a lease's id is not 0")
	}
	return nil
}

// leaseJSON is a lease in an answer.
type leaseJSON struct {
	Lease     uint64       `json:"lease"`
	TTL       durationJSON `json:"ttl"`
	Remaining durationJSON `json:"remaining"`
	KeyCount  uint64       `json:"key_count"`
	Lock      string       `json:"lock"`
	Lock64    []byte       `json:"lock64"`
	Keys      []string     `json:"keys"`
	Keys64    [][]byte     `json:"keys64"`
	More      bool         `json:"more"`
}

func (j *leaseJSON) lease() (Lease, error) {
	if j.Lease == 0 || j.TTL <= 0 {
		return Lease{}, missing("lease or ttl")
	}
	return Lease{ID: j.Lease, TTL: time.Duration(j.TTL)}, nil
}

func (j *leaseJSON) info() (LeaseInfo, error) {
	lease, err := j.lease()
	info := LeaseInfo{
		Lease: lease, Remaining: time.Duration(j.Remaining), KeyCount: j.KeyCount, Lock: j.Lock,
		Keys: mergeKeys(j.Keys, j.Keys64), MoreKeys: j.More,
	}
	if len(j.Lock64) > 0 {
		info.Lock = string(j.Lock64)
	}
	return info, err
}

// leaseOf is the lease that an answer is.
func leaseOf(a *answer) (Lease, error) {
	var doc leaseJSON
	if err := decodeJSON(a, &doc); err != nil {
		return Lease{}, err
	}
	return doc.lease()
}
