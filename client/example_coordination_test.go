package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"trivet/client"
)

// A cache of a part of the keys, which is never older than what it was told last.
func ExampleClient_Watch() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Open(ctx, client.Config{Endpoints: exampleEndpoints()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Put(ctx, "example/config/colour", []byte("red")); err != nil {
		log.Fatal(err)
	}

	cache := map[string]string{}
	for frame, err := range c.Watch(ctx, client.Prefix("example/config/"), client.Initial()) {
		if err != nil {
			log.Fatal(err)
		}
		switch frame.Kind {
		case client.FrameReset:
			clear(cache)
		case client.FrameItems:
			for _, item := range frame.Items {
				cache[item.Key] = string(item.Value)
			}
		case client.FrameSynced:
			fmt.Println("at first:", cache)
			// Somebody changes two keys at once.
			_, err := c.Txn().Then(
				client.OpPut("example/config/colour", []byte("blue")),
				client.OpPut("example/config/size", []byte("small")),
			).Commit(ctx)
			if err != nil {
				log.Fatal(err)
			}
		case client.FrameChange:
			for _, event := range frame.Events {
				if event.Type == client.EventPut {
					cache[event.Item.Key] = string(event.Item.Value)
				} else {
					delete(cache, event.Item.Key)
				}
			}
			fmt.Println("then:", cache)
			return
		}
	}
	// Output:
	// at first: map[example/config/colour:red]
	// then: map[example/config/colour:blue example/config/size:small]
}

// Work that only one instance may do at a time.
func ExampleClient_Lock() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Open(ctx, client.Config{Endpoints: exampleEndpoints()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	lock, err := c.Lock(ctx, "example/nightly", client.WithOwner("instance 1"))
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.TryLock(ctx, "example/nightly")
	var e *client.Error
	if errors.As(err, &e) && errors.Is(err, client.ErrLocked) {
		fmt.Println("held by", e.Holder.Owner)
	}

	// The work ends when the lock is lost, and what it writes is refused if it
	// was lost without its knowing.
	if _, err := c.Put(lock.Context(), "example/report", []byte("done"), lock.Guard()); err != nil {
		log.Fatal(err)
	}
	if err := lock.Unlock(ctx); err != nil {
		log.Fatal(err)
	}
	_, err = c.Put(ctx, "example/report", []byte("done twice"), lock.Guard())
	fmt.Println("too late:", errors.Is(err, client.ErrGuardFailed))
	// Output:
	// held by instance 1
	// too late: true
}

// An instance that is there as long as its key is.
func ExampleClient_KeepAlive() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Open(ctx, client.Config{Endpoints: exampleEndpoints()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	lease, err := c.LeaseGrant(ctx, 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	kept, err := c.KeepAlive(ctx, lease.ID)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.Put(ctx, "example/instances/1", []byte("10.0.0.1:80"), client.WithLease(lease.ID)); err != nil {
		log.Fatal(err)
	}
	fmt.Println("registered:", kept.Err() == nil)

	if _, err := c.LeaseRevoke(ctx, lease.ID); err != nil {
		log.Fatal(err)
	}
	n, err := c.Count(ctx, client.Prefix("example/instances/"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("instances:", n)
	// Output:
	// registered: true
	// instances: 0
}

// A write that may be asked for any number of times.
func ExampleWithIdempotencyKey() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Open(ctx, client.Config{Endpoints: exampleEndpoints()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	// The name of the order, say, as its customer sent it.
	order := fmt.Sprint("order-", time.Now().UnixNano())
	for range 3 {
		sold, err := c.Add(ctx, "example/sold", 1, client.WithIdempotencyKey(order))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(sold)
	}
	// Output:
	// 1
	// 1
	// 1
}
