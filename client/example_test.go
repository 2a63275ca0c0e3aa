package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"
	"time"

	"trivet/client"
)

// exampleEndpoints are those of a cluster of three members in this process.
func exampleEndpoints() []string {
	urls, err := emptied()
	if err != nil {
		log.Fatal(err)
	}
	return urls
}

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Open(ctx, client.Config{Endpoints: exampleEndpoints()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if _, err := c.Put(ctx, "example/greeting", []byte("hello")); err != nil {
		log.Fatal(err)
	}
	item, err := c.Get(ctx, "example/greeting")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, version %d\n", item.Value, item.Version)

	_, err = c.Get(ctx, "example/farewell")
	fmt.Println(errors.Is(err, client.ErrNotFound))
	// Output:
	// hello, version 1
	// true
}

// Changing what others may change at the same time: read, compute, write on the
// condition that nothing has come in between, and start again where it has.
func ExampleIfRevision() {
	ctx := context.Background()
	c, err := client.Open(ctx, client.Config{Endpoints: exampleEndpoints()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	double := func(key string) error {
		for {
			item, err := c.Get(ctx, key)
			if errors.Is(err, client.ErrNotFound) {
				item = client.Item{Key: key, Value: []byte("1")}
			} else if err != nil {
				return err
			}
			n, err := strconv.Atoi(string(item.Value))
			if err != nil {
				return err
			}
			_, err = c.Put(ctx, key, strconv.AppendInt(nil, int64(2*n), 10), client.IfRevision(item.ModRevision))
			if !errors.Is(err, client.ErrConflict) {
				return err
			}
		}
	}
	for range 3 {
		if err := double("example/doubled"); err != nil {
			log.Fatal(err)
		}
	}
	item, err := c.Get(ctx, "example/doubled")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", item.Value)
	// Output: 8
}

// Moving something from one place to another, so that nobody ever sees it in
// both or in neither.
func ExampleClient_Txn() {
	ctx := context.Background()
	c, err := client.Open(ctx, client.Config{Endpoints: exampleEndpoints()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if _, err := c.Put(ctx, "example/inbox/1", []byte("letter")); err != nil {
		log.Fatal(err)
	}
	letter, err := c.Get(ctx, "example/inbox/1")
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		res, err := c.Txn().
			If(client.Unchanged(letter)).
			Then(
				client.OpDelete("example/inbox/1"),
				client.OpPut("example/archive/1", letter.Value),
				client.OpAdd("example/archived", 1),
			).
			Else(client.OpGet("example/archive/1")).
			Commit(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if res.Succeeded {
			fmt.Println("moved; in the archive:", res.Results[2].Add.Value)
		} else {
			fmt.Println("already there:", res.Results[0].Get.Found)
		}
	}
	// Output:
	// moved; in the archive: 1
	// already there: true
}

func ExampleClient_List() {
	ctx := context.Background()
	c, err := client.Open(ctx, client.Config{Endpoints: exampleEndpoints()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	for name, colour := range map[string]string{"apple": "red", "lemon": "yellow", "plum": "blue"} {
		if _, err := c.Put(ctx, "example/fruit/"+name, []byte(colour)); err != nil {
			log.Fatal(err)
		}
	}
	for item, err := range c.List(ctx, client.Prefix("example/fruit/"), client.Reverse(), client.Limit(2)) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s is %s\n", item.Key, item.Value)
	}
	// Output:
	// example/fruit/plum is blue
	// example/fruit/lemon is yellow
}

// What to tell one's own callers about a write that failed.
func ExampleError() {
	ctx := context.Background()
	c, err := client.Open(ctx, client.Config{Endpoints: exampleEndpoints()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if _, err := c.Put(ctx, "example/name", []byte("x")); err != nil {
		log.Fatal(err)
	}
	_, err = c.Add(ctx, "example/name", 1)
	switch {
	case errors.Is(err, client.ErrUnknown):
		fmt.Println("it may have been counted: look before trying again")
	case errors.Is(err, client.ErrUnavailable):
		fmt.Println("it was not counted: try again later")
	case err != nil:
		var e *client.Error
		errors.As(err, &e)
		fmt.Println("it was not counted:", e.Code)
	}
	// Output: it was not counted: not_a_number
}
