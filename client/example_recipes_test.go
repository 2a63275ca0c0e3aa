package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"
	"sync/atomic"
	"time"

	"trivet/client"
)

// The recipes of docs/client.md. What stands there is cut from here; a test compares
// the two.

// Allow reports whether the caller may do one more thing: limit in a window, which
// begins with the first and is timed by the cluster.
func Allow(ctx context.Context, c *client.Client, caller string, limit int, window time.Duration) (bool, error) {
	key := "rate/" + caller
	allowed := false
	_, err := c.Update(ctx, func(tx *client.Tx) error {
		it, err := tx.Get(key)
		if errors.Is(err, client.ErrNotFound) {
			allowed = true
			return tx.Put(key, []byte("1"), client.WithTTL(window))
		}
		if err != nil {
			return err
		}
		used, err := strconv.Atoi(string(it.Value))
		if err != nil {
			return err
		}
		if allowed = used < limit; !allowed {
			return nil // and nothing is written
		}
		// Under the same lease: the key still goes when its window is over.
		return tx.Put(key, []byte(strconv.Itoa(used+1)), client.WithLease(it.Lease))
	})
	return allowed, err
}

// A rate limiter that all instances of a service share.
func Example_rateLimiter() {
	ctx, c, done := recipe()
	defer done()
	for i := range 4 {
		ok, err := Allow(ctx, c, "10.0.0.1", 3, time.Minute)
		fmt.Println(i+1, ok, err)
	}
	// Output:
	// 1 true <nil>
	// 2 true <nil>
	// 3 true <nil>
	// 4 false <nil>
}

// Claim takes a job, for as long as the worker's lease lasts. It reports false where
// another worker has it.
func Claim(ctx context.Context, c *client.Client, job, worker string, lease uint64) (claim client.Item, ok bool, err error) {
	put, err := c.Put(ctx, "claims/"+job, []byte(worker), client.IfAbsent(), client.WithLease(lease))
	if errors.Is(err, client.ErrConflict) {
		return client.Item{}, false, nil
	}
	return client.Item{Key: "claims/" + job, ModRevision: put.Revision}, err == nil, err
}

// Finish writes the result of a job and takes the job away, if the claim still is this
// worker's: one whose lease has ended has lost it.
func Finish(ctx context.Context, c *client.Client, job string, claim client.Item, result []byte) (bool, error) {
	res, err := c.Txn().
		If(client.Unchanged(claim)).
		Then(client.OpPut("results/"+job, result), client.OpDelete("jobs/"+job), client.OpDelete(claim.Key)).
		Commit(ctx)
	return res.Succeeded, err
}

// Jobs that are done by one worker each, and by another where that one dies.
func Example_jobClaimedOnce() {
	ctx, c, done := recipe()
	defer done()
	if _, err := c.Put(ctx, "jobs/7", []byte("resize cat.png")); err != nil {
		log.Fatal(err)
	}
	var leases [2]uint64
	for i := range leases {
		lease, err := c.LeaseGrant(ctx, 10*time.Second)
		if err != nil {
			log.Fatal(err)
		}
		// Kept alive while the worker lives: KeepAlive.
		leases[i] = lease.ID
	}

	claimA, ok, err := Claim(ctx, c, "7", "worker a", leases[0])
	fmt.Println("a claims:", ok, err)
	_, ok, err = Claim(ctx, c, "7", "worker b", leases[1])
	fmt.Println("b claims:", ok, err)

	_, err = c.LeaseRevoke(ctx, leases[0]) // worker a dies
	if err != nil {
		log.Fatal(err)
	}
	claimB, ok, err := Claim(ctx, c, "7", "worker b", leases[1])
	fmt.Println("b claims:", ok, err)
	ok, err = Finish(ctx, c, "7", claimA, []byte("a's"))
	fmt.Println("a finishes:", ok, err)
	ok, err = Finish(ctx, c, "7", claimB, []byte("b's"))
	fmt.Println("b finishes:", ok, err)
	// Output:
	// a claims: true <nil>
	// b claims: false <nil>
	// b claims: true <nil>
	// a finishes: false <nil>
	// b finishes: true <nil>
}

// Settings are what can be changed while the service runs.
type Settings struct {
	Greeting string `json:"greeting"`
	Workers  int    `json:"workers"`
}

// Follow keeps current up to date until ctx ends. A document that is none changes
// nothing: what was valid last stays.
func Follow(ctx context.Context, c *client.Client, current *atomic.Pointer[Settings], changed func()) error {
	for e, err := range client.JSON[Settings](c, "settings/").Watch(ctx) {
		switch {
		case errors.Is(err, client.ErrDocument):
			log.Println("settings:", err)
		case err != nil:
			return err
		case e.Key == "web" && !e.Deleted:
			current.Store(&e.Value)
			changed()
		}
	}
	return nil
}

// Configuration that every instance takes over as it is changed.
func Example_liveReload() {
	ctx, c, done := recipe()
	defer done()
	settings := client.JSON[Settings](c, "settings/")
	if _, err := settings.Put(ctx, "web", Settings{Greeting: "hello", Workers: 4}); err != nil {
		log.Fatal(err)
	}
	var current atomic.Pointer[Settings]
	changed := make(chan struct{})
	following, stop := context.WithCancel(ctx)
	stopped := make(chan error)
	go func() { stopped <- Follow(following, c, &current, func() { changed <- struct{}{} }) }()

	<-changed
	fmt.Println(*current.Load())
	_, err := settings.Update(ctx, "web", func(s *Settings, _ bool) error {
		s.Workers *= 2
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	<-changed
	fmt.Println(*current.Load())
	stop()
	fmt.Println(errors.Is(<-stopped, context.Canceled))
	// Output:
	// {hello 4}
	// {hello 8}
	// true
}

// Lead runs task while this process leads, again and again until ctx ends. Its context
// ends before anybody else can lead, and what it writes under the guard is written only
// while it does.
func Lead(ctx context.Context, c *client.Client, self string, task func(ctx context.Context, guard client.GuardOption) error) error {
	for {
		leadership, err := c.Election("leader").Campaign(ctx, []byte(self))
		if err != nil {
			return err // most likely that of ctx
		}
		// ctx ends the task too.
		working, stop := context.WithCancel(leadership.Context())
		unhook := context.AfterFunc(ctx, stop)
		err = task(working, leadership.Guard())
		lost := leadership.Err()
		unhook()
		stop()
		// Also where ctx has ended: whoever comes next should not wait for the ttl.
		resigning, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		rerr := leadership.Resign(resigning)
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case lost != nil: // another leads; this one waits for its next turn
		default:
			return errors.Join(err, rerr)
		}
	}
}

// A task that one of many processes does at a time.
func Example_leaderOnlyTask() {
	ctx, c, done := recipe()
	defer done()
	err := Lead(ctx, c, "web-1", func(ctx context.Context, guard client.GuardOption) error {
		leader, err := c.Election("leader").Leader(ctx)
		if err != nil {
			return err
		}
		fmt.Println("leader:", string(leader.Value))
		_, err = c.Put(ctx, "report", []byte("of tonight"), guard)
		return err
	})
	fmt.Println("done:", err)
	_, err = c.Election("leader").Leader(ctx)
	fmt.Println("nobody leads:", errors.Is(err, client.ErrNotFound))
	// Output:
	// leader: web-1
	// done: <nil>
	// nobody leads: true
}

// Consume applies a message once, however often it is delivered and by whatever
// consumer: that it was, and what it does, are written in one step. It reports false
// for a repeat.
func Consume(ctx context.Context, c *client.Client, id string, does ...client.Op) (bool, error) {
	seen := "consumed/" + id
	// As long as the queue may deliver it again.
	mark := client.OpPut(seen, nil, client.WithTTL(24*time.Hour))
	res, err := c.Txn().If(client.Absent(seen)).Then(append(does, mark)...).Commit(ctx)
	return res.Succeeded, err
}

// A consumer of a queue that delivers each message at least once.
func Example_idempotentConsumer() {
	ctx, c, done := recipe()
	defer done()
	for _, id := range []string{"m-1", "m-2", "m-1"} {
		first, err := Consume(ctx, c, id, client.OpAdd("stock/apples", -3))
		fmt.Println(id, first, err)
	}
	stock, err := c.Get(ctx, "stock/apples")
	fmt.Println(string(stock.Value), err)
	// Output:
	// m-1 true <nil>
	// m-2 true <nil>
	// m-1 false <nil>
	// -6 <nil>
}

// A copy of a range in memory.
func ExampleClient_Cache() {
	ctx, c, done := recipe()
	defer done()
	if _, err := c.Put(ctx, "routes/api", []byte("10.0.0.7")); err != nil {
		log.Fatal(err)
	}
	routes, err := c.Cache(ctx, client.Prefix("routes/"), client.WithMaxAge(time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer routes.Close()
	route, err := routes.Get(ctx, "routes/api") // from memory
	fmt.Println(string(route.Value), err)
	if _, err := c.Put(ctx, "routes/web", []byte("10.0.0.8")); err != nil {
		log.Fatal(err)
	}
	for route, err := range routes.Range(ctx, client.Prefix("routes/")) { // with the write above
		fmt.Println(route.Key, string(route.Value), err)
	}
	// Output:
	// 10.0.0.7 <nil>
	// routes/api 10.0.0.7 <nil>
	// routes/web 10.0.0.8 <nil>
}

// recipe opens a client of an empty cluster.
func recipe() (context.Context, *client.Client, func()) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c, err := client.Open(ctx, client.Config{Endpoints: exampleEndpoints()})
	if err != nil {
		log.Fatal(err)
	}
	return ctx, c, func() {
		cancel()
		_ = c.Close()
	}
}
