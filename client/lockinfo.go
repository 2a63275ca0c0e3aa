package client

import (
	"context"
	"net/http"
	"time"
)

// LockHolder is who holds a lock, or waits for it.
type LockHolder struct {
	// Token is the fencing token: of the holders of one lock, a later one's is
	// greater. One who waits has it already, but holds nothing yet.
	Token uint64
	// Lease is the lease that the lock is held by; 0 for one who waits.
	Lease uint64
	// Owner is what the holder says of itself (WithOwner).
	Owner string
	// TTL is the lock's; 0 for one who waits.
	TTL time.Duration
	// Remaining is what is left of the ttl or, of one who waits, of the wait; 0
	// in Error.Holder.
	Remaining time.Duration
}

// LockInfo is a lock as it stood when it was read.
type LockInfo struct {
	Name string
	// Holder is nil where nobody holds the lock.
	Holder *LockHolder
	// Queue is the first of those who wait for it, in their order; Waiting is how
	// many they are in all.
	Queue   []LockHolder
	Waiting uint64
}

// GetLock returns who holds a lock and who waits for it. That nobody holds it is
// no error.
func (c *Client) GetLock(ctx context.Context, name string, opts ...Freshness) (LockInfo, error) {
	op := shownLock(name)
	p := freshnessParams(opts)
	r := &request{op: op, method: http.MethodGet, path: lockPath(name)}
	if e := firstOf(checkLockName(op, name), p.addFreshness(op, c.Revision(), &r.query)); e != nil {
		return LockInfo{}, e
	}
	var info LockInfo
	r.decode = func(a *answer) error {
		var doc struct {
			Queue   *[]holderJSON `json:"queue"`
			Holder  *holderJSON   `json:"holder"`
			Waiting uint64        `json:"waiting"`
		}
		if err := decodeJSON(a, &doc); err != nil {
			return err
		}
		if doc.Queue == nil {
			return missing("queue")
		}
		info = LockInfo{Name: name, Waiting: doc.Waiting}
		if doc.Holder != nil {
			holder := doc.Holder.holder()
			info.Holder = &holder
		}
		for i := range *doc.Queue {
			info.Queue = append(info.Queue, (*doc.Queue)[i].holder())
		}
		return nil
	}
	if err := c.do(ctx, r); err != nil {
		return LockInfo{}, err
	}
	return info, nil
}

func lockPath(name string) string { return locksPrefix + escaped(name) }

func shownLock(name string) string { return "lock " + shown(name) }

// holderJSON is a holder, or one who waits, in an answer.
type holderJSON struct {
	Token     uint64       `json:"token"`
	Lease     uint64       `json:"lease"`
	Owner     string       `json:"owner"`
	TTL       durationJSON `json:"ttl"`
	Remaining durationJSON `json:"remaining"`
}

func (j *holderJSON) holder() LockHolder {
	return LockHolder{
		Token: j.Token, Lease: j.Lease, Owner: j.Owner,
		TTL: time.Duration(j.TTL), Remaining: time.Duration(j.Remaining),
	}
}
